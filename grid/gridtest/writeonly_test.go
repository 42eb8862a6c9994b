package gridtest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gotong/grid/gridtest"
	"gotong/storage"
	"gotong/storage/shardrpc"
)

// secretBytes is the length of the contents that the test looks for; random
// bytes are stored as they are.
const secretBytes = 20_000

// TestWriteOnlyAgainstThief: whoever has all files of a write-only device reads
// what is still on it, and nothing else; friends take no deletion from it.
func TestWriteOnlyAgainstThief(t *testing.T) {
	skipShort(t)
	// On the real clock: what a backup remembers of files depends on their times.
	// They are there well before the first one.
	gone, here := make([]byte, secretBytes), make([]byte, secretBytes)
	_, _ = rand.Read(gone)
	_, _ = rand.Read(here)
	dir := source(t, string(gone), string(here))
	sub := filepath.Join(dir, "gone for good")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(sub, "a")); err != nil {
		t.Fatal(err)
	}
	c := gridtest.New(t, gridtest.ClusterConfig{Peers: 3, WriteOnly: true})
	you := c.Peers[0]
	for range 2 {
		if _, err := backupOf(t, you, dir); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(sub); err != nil { // before the second one
			t.Fatal(err)
		}
	}
	you.Stop()
	a := breakIn(t, you)
	if a.secrets.CanRead() {
		t.Fatal("the read key is on the device")
	}
	forged := a.forgeDeletion()
	a.each(func(friend *shardrpc.Client) {
		if err := friend.PutDeletions(t.Context(), [][]byte{forged}); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("a deletion under a grant without expire: %v", err)
		}
	})
	if a.deleteAll(t.Context()) > 0 {
		t.Error("the device deleted")
	}
	read := a.readAll(filesBelow(t, you.Home))
	if !bytes.Contains(read, here) {
		t.Error("what is on the machine was not read: the test proves nothing")
	}
	if bytes.Contains(read, gone) || strings.Contains(string(read), "gone for good") {
		t.Error("what is no longer on the machine was read")
	}
	// The owner reads all of it with the phrase.
	fresh, _, err := c.Recover(you.Phrase, c.Peers[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	target, first := t.TempDir(), ""
	all, err := fresh.AllSnapshots(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	first = all[0].ID.String()
	if _, err := restoreOf(t, fresh, first, target); err != nil {
		t.Fatal(err)
	}
	wantFile(t, target, filepath.Join(dir, "gone for good"), "a", string(gone))
}

// filesBelow returns the bytes of all files below a directory.
func filesBelow(t *testing.T, dir string) (out []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.Contains(path, "/shards/") {
			return err
		}
		data, err := os.ReadFile(path)
		out = append(out, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sealedBlob is a blob as a friend has it.
type sealedBlob struct {
	kind byte
	data []byte
}

// blobs fetches every pack and returns its blobs by name, which takes the index
// key only.
func (a *attacker) blobs() map[[32]byte]sealedBlob {
	a.t.Helper()
	out := map[[32]byte]sealedBlob{}
	a.each(func(friend *shardrpc.Client) {
		for id, err := range friend.List(a.t.Context(), a.secrets.Vault()) {
			if err != nil {
				a.t.Fatal(err)
			}
			a.openPack(a.fetch(friend, id), out)
		}
	})
	return out
}

// fetch returns a segment of which every shard is a copy.
func (a *attacker) fetch(friend *shardrpc.Client, id storage.ShardID) []byte {
	a.t.Helper()
	reader, err := friend.OpenShard(a.t.Context(), id, 0, -1)
	if err != nil {
		a.t.Fatal(err)
	}
	defer reader.Close()
	if k := reader.Header().Redundancy.K; k != 1 {
		a.t.Fatalf("coded with k = %d", k)
	}
	var data bytes.Buffer
	if _, err := data.ReadFrom(reader); err != nil {
		a.t.Fatal(err)
	}
	return data.Bytes()[:reader.Header().Bytes]
}

func (a *attacker) openPack(data []byte, out map[[32]byte]sealedBlob) {
	const trailer, entry = 44, 41
	if len(data) < trailer {
		return
	}
	tail, err := a.secrets.OpenIndexed(nil, "pack trailer", data[len(data)-trailer:])
	if err != nil {
		return // a part of the catalogue
	}
	offset, length := binary.BigEndian.Uint32(tail[4:]), binary.BigEndian.Uint32(tail[8:])
	table, err := a.secrets.OpenIndexed(nil, "pack toc", data[offset:offset+length])
	if err != nil {
		a.t.Fatal(err)
	}
	at := uint32(0)
	for ; len(table) >= entry; table = table[entry:] {
		sealed := binary.BigEndian.Uint32(table[33:])
		out[[32]byte(table)] = sealedBlob{table[32], data[at : at+sealed]}
		at += sealed
	}
}

// readAll opens every blob whose hash is found in what is known, and in what is
// read thereby, and returns all that was read. Each 32 bytes anywhere are tried
// as a hash.
func (a *attacker) readAll(known []byte) (read []byte) {
	a.t.Helper()
	blobs := a.blobs()
	if len(blobs) == 0 {
		a.t.Fatal("friends have no blob")
	}
	tried := map[[32]byte]bool{}
	for queue := [][]byte{known}; len(queue) > 0; queue = queue[1:] {
		for i := 0; i+32 <= len(queue[0]); i++ {
			h := [32]byte(queue[0][i:])
			if tried[h] {
				continue
			}
			tried[h] = true
			blob, found := blobs[a.secrets.BlobID(h)]
			if !found {
				continue
			}
			plain, err := a.secrets.OpenBlob(nil, blob.kind, h, blob.data)
			if err != nil {
				a.t.Fatal(err)
			}
			if blob.kind == 2 {
				plain = unzstd(a.t, plain)
			}
			read = append(read, plain...)
			queue = append(queue, plain)
		}
	}
	return read
}

func unzstd(t *testing.T, data []byte) []byte {
	t.Helper()
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	plain, err := decoder.DecodeAll(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}
