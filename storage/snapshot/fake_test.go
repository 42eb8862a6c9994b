package snapshot

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// fakeSegments keeps segments in memory.
type fakeSegments struct {
	vault.Segments // what no test here asks for

	mu       sync.Mutex
	segments map[storage.SegmentID][]byte
	gets     map[storage.SegmentID]int
	bytes    int
	discard  bool   // keep nothing, for measuring
	dir      string // when set, keep them in files there, for measuring
	put      func() error
	gone     error // what Get says beside storage.ErrTooFewShards of a segment that it does not have
}

func (f *fakeSegments) Put(ctx context.Context, data []byte) (vault.Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.put != nil {
		if err := f.put(); err != nil {
			return vault.Stored{}, err
		}
	}
	id := storage.SegmentID(blake3.Sum256(data[len(data)-64:]))
	f.bytes += len(data)
	switch {
	case f.dir != "":
		f.segments[id] = nil
		if err := os.WriteFile(filepath.Join(f.dir, id.String()), data, 0o600); err != nil {
			return vault.Stored{}, err
		}
	case !f.discard:
		f.segments[id] = slices.Clone(data)
	}
	return vault.Stored{ID: id, Redundancy: storage.Redundancy{K: 1, N: 1}, ShardBytes: len(data), Committed: true, Complete: true, SurvivesSites: 1}, ctx.Err()
}

func (f *fakeSegments) Get(ctx context.Context, id storage.SegmentID, _ []storage.Holder, buffer []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.segments[id]
	if !ok {
		return nil, fmt.Errorf("segment %s: %w", id.Short(), errors.Join(storage.ErrTooFewShards, f.gone))
	}
	f.gets[id]++
	if f.dir != "" {
		file, err := os.Open(filepath.Join(f.dir, id.String()))
		if err != nil {
			return nil, err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		buffer = slices.Grow(buffer[:0], int(info.Size()))[:info.Size()]
		_, err = io.ReadFull(file, buffer)
		return buffer, err
	}
	return append(buffer[:0], data...), ctx.Err()
}

func (f *fakeSegments) Range(ctx context.Context, id storage.SegmentID, _ []storage.Holder, off, n int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.segments[id]
	if !ok || off+n > int64(len(data)) {
		return nil, storage.ErrNotFound
	}
	return slices.Clone(data[off : off+n]), ctx.Err()
}

func (f *fakeSegments) PublishHeads(context.Context, [][]byte) (int, error) { return 2, nil }

func (f *fakeSegments) FindHeads(context.Context, grid.OwnerID) ([]storage.VaultHeads, error) {
	return nil, nil
}

func newVault(t testing.TB) (*vault.Vault, *fakeSegments) {
	t.Helper()
	segments := &fakeSegments{segments: map[storage.SegmentID][]byte{}, gets: map[storage.SegmentID]int{}}
	secrets, err := seal.DeriveVault(make([]byte, 32), storage.VaultID{7})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/dev/shm", "vault") // where waiting for the disk is not what is tested
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := vault.Create(dir, secrets); err != nil {
		t.Fatal(err)
	}
	owner := ed25519.NewKeyFromSeed(make([]byte, 32))
	node := ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	grant := identity.SignDelegation(owner, identity.Delegation{
		Peer: grid.PeerIDOf(node.Public().(ed25519.PublicKey)), Capabilities: grid.CapAll, Epoch: 1, Created: time.Unix(1e9, 0),
	}).Encode()
	v, err := vault.Open(dir, vault.Config{Segments: segments, Node: node,
		Owner: grid.OwnerIDOf(owner.Public().(ed25519.PublicKey)), Grant: func() []byte { return grant }, Floor: func() time.Duration { return time.Hour }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v, segments
}

func backUp(t testing.TB, v *vault.Vault, paths ...string) BackupSummary {
	t.Helper()
	s, err := Backup(context.Background(), v, BackupOptions{Paths: paths, Host: "host",
		Skipped: func(path string, err error) { t.Errorf("backup skipped %q: %v", path, err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// restoreAll restores what is at a path of the newest snapshot into a new place.
func restoreAll(t testing.TB, v *vault.Vault, path string) string {
	t.Helper()
	target := t.TempDir() + "/restored"
	if _, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Path: path,
		Skipped: func(path string, err error) { t.Errorf("restore skipped %q: %v", path, err) }}); err != nil {
		t.Fatal(err)
	}
	return target
}
