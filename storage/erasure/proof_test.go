package erasure_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/erasure"
)

const group = storage.ProofGroupBytes

func shardOf(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	return b
}

func outboardOf(t testing.TB, shard []byte) *erasure.Outboard {
	t.Helper()
	o, err := erasure.NewOutboard(bytes.NewReader(shard), len(shard))
	if err != nil {
		t.Fatal(err)
	}
	if o.Root() != blake3.Sum256(shard) {
		t.Fatalf("the tree of %d bytes has another root than their BLAKE3", len(shard))
	}
	return o
}

// TestProofs: each group of shards of all shapes is proved by its own bytes and
// a path, and by those of no other group.
func TestProofs(t *testing.T) {
	for _, size := range []int{1, 64, 1024, group - 1, group, group + 1, 2 * group, 3*group + 5, 7 * group, 8*group - 1, 33*group + 64} {
		shard := shardOf(size)
		o, root := outboardOf(t, shard), blake3.Sum256(shard)
		groups := storage.ProofGroups(size)
		for g := range groups {
			proof, err := o.Prove(bytes.NewReader(shard), g)
			if err != nil {
				t.Fatalf("group %d of %d bytes: %v", g, size, err)
			}
			part := shard[g*group : min((g+1)*group, size)]
			if !bytes.HasSuffix(proof, part) || len(proof) > len(part)+8+64*6 {
				t.Fatalf("group %d of %d bytes: proof of %d bytes", g, size, len(proof))
			}
			for other := range groups {
				if err := erasure.VerifyProof(root, size, other, proof); (err == nil) != (other == g) {
					t.Fatalf("proof of group %d of %d bytes as that of %d: %v", g, size, other, err)
				}
			}
		}
		for _, g := range []int{-1, groups, 1 << 40} {
			if _, err := o.Prove(bytes.NewReader(shard), g); err == nil {
				t.Errorf("group %d of %d bytes proved", g, size)
			}
			if err := erasure.VerifyProof(root, size, g, nil); err == nil {
				t.Errorf("group %d of %d bytes verified", g, size)
			}
		}
	}
}

// TestAlteredProofs: no bit of a proof may be another.
func TestAlteredProofs(t *testing.T) {
	shard := shardOf(3*group + 100)
	o, root := outboardOf(t, shard), blake3.Sum256(shard)
	proof, err := o.Prove(bytes.NewReader(shard), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range proof {
		altered := bytes.Clone(proof)
		altered[i] ^= 1 << (i % 8)
		if err := erasure.VerifyProof(root, len(shard), 3, altered); !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, proof[:8], proof[:len(proof)-1], append(bytes.Clone(proof), 0)} {
		if err := erasure.VerifyProof(root, len(shard), 3, bad); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", len(bad), len(proof), err)
		}
	}
	if err := erasure.VerifyProof(root, len(shard)+1, 3, proof); err == nil {
		t.Error("proof of a shard of another length accepted")
	}
}

// TestProofOfChangedBytes: whoever proves notices that the bytes are not those
// that the tree was made of.
func TestProofOfChangedBytes(t *testing.T) {
	shard := shardOf(4 * group)
	o := outboardOf(t, shard)
	shard[2*group+7] ^= 1
	if _, err := o.Prove(bytes.NewReader(shard), 2); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("changed group: %v", err)
	}
	if _, err := o.Prove(bytes.NewReader(shard), 1); err != nil {
		t.Errorf("another group: %v", err)
	}
	if _, err := o.Prove(bytes.NewReader(shard[:3*group+1]), 3); err == nil {
		t.Error("group that is cut off proved")
	}
	if _, err := erasure.NewOutboard(bytes.NewReader(shard), len(shard)+1); err == nil {
		t.Error("tree of a shard that is too short")
	}
}

// FuzzVerifyProof: whatever a peer sends, only the proof of that group of that
// shard is one.
func FuzzVerifyProof(f *testing.F) {
	shard := shardOf(2*group + 9)
	o, root := outboardOf(f, shard), blake3.Sum256(shard)
	var proofs [][]byte
	for g := range 3 {
		proof, err := o.Prove(bytes.NewReader(shard), g)
		if err != nil {
			f.Fatal(err)
		}
		proofs = append(proofs, proof)
		f.Add(len(shard), g, proof)
	}
	f.Add(1<<40, 5, []byte("x"))
	f.Fuzz(func(t *testing.T, shardBytes, g int, proof []byte) {
		if erasure.VerifyProof(root, shardBytes, g, proof) != nil {
			return
		}
		if shardBytes != len(shard) || !bytes.Equal(proof, proofs[g]) {
			t.Fatalf("another proof of group %d of %d bytes is accepted", g, shardBytes)
		}
	})
}

func BenchmarkOutboard(b *testing.B) {
	shard := shardOf(4 << 20)
	b.SetBytes(int64(len(shard)))
	for b.Loop() {
		if _, err := erasure.NewOutboard(bytes.NewReader(shard), len(shard)); err != nil {
			b.Fatal(err)
		}
	}
}
