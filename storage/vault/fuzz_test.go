package vault

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

// samplePack is a pack of a few blobs as it is sent.
func samplePack(t testing.TB) (data []byte, tocOffset, tocBytes int) {
	secrets := testSecrets(t)
	p := &pack{buf: make([]byte, 0, storage.MaxSegmentBytes)}
	for i := range 5 {
		plain := randomBytes(byte(i), 100*i+1)
		h := seal.Hash(plain)
		place := p.reserve(tocEntry{id: blobIDOf(secrets, h), coding: encodingRaw, plain: uint32(len(plain)), sealed: uint32(len(plain) + seal.Overhead)})
		secrets.SealBlob(place[:0], encodingRaw, h, plain)
		p.filling.Done()
	}
	return p.finish(secrets)
}

func TestPackReadsItself(t *testing.T) {
	data, tocOffset, tocBytes := samplePack(t)
	if len(data) != paddedSize(len(data)) {
		t.Errorf("pack of %d bytes is not padded", len(data))
	}
	entries, err := readTOC(testSecrets(t), data)
	if err != nil || len(entries) != 5 || tocBytes != 5*tocEntryBytes+seal.Overhead {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	last := entries[4]
	if int(last.offset+last.sealed) != tocOffset {
		t.Error("blobs do not end where the table begins")
	}
	for i := range data {
		if i >= tocOffset && i < tocOffset+tocBytes || i >= len(data)-trailerBytes {
			data[i] ^= 1
			if _, err := readTOC(testSecrets(t), data); err == nil {
				t.Fatalf("byte %d altered and not noticed", i)
			}
			data[i] ^= 1
		}
	}
}

func TestPaddingIsBounded(t *testing.T) {
	for n := 1; n < storage.MaxSegmentBytes; n += 997 {
		p := paddedSize(n)
		if p < n || n > minPadded && float64(p) > 1.125*float64(n) || p != paddedSize(p) {
			t.Fatalf("%d is padded to %d", n, p)
		}
		if n < 100_000 {
			plain := bytes.Repeat([]byte{0x80}, n)
			padded := padPlain(bytes.Clone(plain), seal.Overhead)
			back, err := unpadPlain(padded)
			if err != nil || !bytes.Equal(back, plain) || len(padded)+seal.Overhead != paddedSize(len(padded)+seal.Overhead) {
				t.Fatalf("%d: %v", n, err)
			}
		}
	}
	if paddedSize(storage.MaxSegmentBytes) != storage.MaxSegmentBytes {
		t.Error("the longest segment does not fit")
	}
}

func FuzzTOC(f *testing.F) {
	data, offset, length := samplePack(f)
	plain, err := testSecrets(f).OpenIndexed(nil, purposeTOC, data[offset:offset+length])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, offset)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, plain []byte, blobBytes int) {
		entries, err := parseTOC(plain, blobBytes)
		if err != nil {
			return
		}
		end := 0
		for _, e := range entries {
			if int(e.offset) != end || e.sealed > maxSealedBytes || e.plain > maxBlobBytes {
				t.Fatalf("entry %+v", e)
			}
			end += int(e.sealed)
		}
		if end != blobBytes {
			t.Fatalf("covers %d of %d", end, blobBytes)
		}
	})
}

func FuzzTrailer(f *testing.F) {
	data, _, _ := samplePack(f)
	plain, err := testSecrets(f).OpenIndexed(nil, purposeTrailer, data[len(data)-trailerBytes:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, len(data))
	f.Fuzz(func(t *testing.T, plain []byte, packBytes int) {
		offset, length, err := parseTrailer(plain, packBytes)
		if err == nil && (offset < 0 || length < 0 || offset+length > packBytes-trailerBytes) {
			t.Fatalf("table at %d+%d of %d", offset, length, packBytes)
		}
	})
}

func FuzzCataloguePart(f *testing.F) {
	b := newPartBuilder()
	b.addRow(segmentRow{number: 3, id: storage.SegmentID{1}, bytes: 8192, tocOffset: 100, tocBytes: 69, k: 4, n: 6,
		holders: []storage.Holder{{Shard: 2, Peer: [32]byte{9}}}})
	b.part.Snapshots = append(b.part.Snapshots, &vaultv1.SnapshotEntry{Record: []byte("record"), Segments: []byte{1, 2}})
	b.part.Forgotten = [][]byte{make([]byte, 32)}
	plain, err := encodePart(&b.part)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		p, err := parsePart(plain)
		if err != nil {
			return
		}
		merged := newPartBuilder()
		merged.addPart(p)
		merged.settle(false)
		if again, err := encodePart(&merged.part); err != nil {
			t.Fatal(err)
		} else if _, err := parsePart(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}

func FuzzHeadState(f *testing.F) {
	plain, err := proto.Marshal(&vaultv1.HeadState{Version: 1, NextNumber: 7, Parts: []*vaultv1.PartRef{{Segment: make([]byte, 32), Bytes: 4096,
		Holders: storage.AppendHolders(nil, []storage.Holder{{Shard: 1, Peer: [32]byte{4}}})}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		if state, err := parseHeadState(plain); err == nil && len(state.Parts) > maxParts {
			t.Fatal("too many parts")
		}
	})
}

func FuzzSnapshotRecord(f *testing.F) {
	plain, err := Snapshot{Host: "h", Paths: []string{"/x"}, Root: Ref{1, [32]byte{2}, 3}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		if s, err := parseSnapshot(plain); err == nil && s.Root.Depth > maxRefDepth {
			t.Fatal("depth")
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add(append(make([]byte, 39), 9), uint8(1), uint64(9))
	f.Fuzz(func(t *testing.T, list []byte, depth uint8, size uint64) {
		children, err := parseList(list, depth, size)
		if err != nil {
			return
		}
		var total uint64
		for _, c := range children {
			total += c.Size
		}
		if total != size {
			t.Fatalf("children of %d bytes in %d", total, size)
		}
	})
}

func FuzzSegmentNumbers(f *testing.F) {
	var s numberSet
	for _, n := range []uint32{0, 1, 2, 7, 64, 65, 1000} {
		s.add(n)
	}
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeNumbers(b, 1<<16)
		if err != nil {
			return
		}
		again, err := decodeNumbers(s.encode(), 1<<16)
		if err != nil || !slices.Equal(slices.Collect(again.all()), slices.Collect(s.all())) {
			t.Fatalf("%v, then %v, %v", s, again, err)
		}
	})
}

func FuzzIndexRows(f *testing.F) {
	id := BlobID{5}
	f.Add(location{1, 2, 30, 2, encodingRaw}.encode(id), id[:])
	f.Add(segmentRow{id: storage.SegmentID{1}, k: 1, n: 1, holders: []storage.Holder{{Peer: [32]byte{1}}}}.encode(), id[:])
	f.Fuzz(func(t *testing.T, b, key []byte) {
		if len(key) == 32 {
			_, _ = decodeLocation(BlobID(key), b)
		}
		_, _ = decodeSegmentRow(1, b)
	})
}

func FuzzHeldDeletions(f *testing.F) {
	f.Add(encodeHeld([]storage.SegmentID{{1}, {2}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseHeld(b)
		if err == nil && !bytes.Equal(encodeHeld(ids), b) {
			t.Fatal("what was read is written otherwise")
		}
	})
}

func FuzzListing(f *testing.F) {
	node, err := proto.Marshal(&vaultv1.Node{Name: []byte("n"), Type: vaultv1.Node_FILE, Size: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{byte(len(node))}, node...), uint16(1))
	f.Fuzz(func(t *testing.T, listing []byte, at uint16) {
		count := func(pieces ...[]byte) (n int, failed bool) {
			cut := nodeCutter{fn: func(*vaultv1.Node) error { n++; return nil }}
			for _, piece := range pieces {
				if _, err := cut.Write(piece); err != nil {
					return n, true
				}
			}
			return n, false
		}
		split := min(int(at), len(listing))
		whole, failed := count(listing)
		parts, failedToo := count(listing[:split], listing[split:])
		if whole != parts || failed != failedToo {
			t.Fatalf("%d nodes at once, %d in two pieces", whole, parts)
		}
	})
}
