package vault

import (
	"errors"
	"testing"

	"gotong/storage"
	"gotong/storage/seal"
)

// TestReadKeyForOneCall: on a write-only device a snapshot opens under a context
// with the read key, and under no other; the key of another vault is refused.
func TestReadKeyForOneCall(t *testing.T) {
	full := testSecrets(t)
	f := &fixture{t: t, dir: t.TempDir(), segments: newFakeSegments(), files: diskFiles{}}
	f.config = testConfig(f.segments)
	if err := Create(f.dir, full.WithoutRead()); err != nil {
		t.Fatal(err)
	}
	f.open()
	t.Cleanup(f.close)
	s, err := f.v.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(Snapshot{Host: "here"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.v.Snapshots(t.Context()); !errors.Is(err, seal.ErrNoReadKey) {
		t.Errorf("without the key: %v", err)
	}
	secrets, err := f.v.ReadSecrets(full.ReadKey())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := f.v.Snapshots(WithReadKey(t.Context(), secrets)); err != nil || len(list) != 1 || list[0].Host != "here" {
		t.Errorf("with the key: %v, %v", list, err)
	}
	other, err := seal.DeriveVault(make([]byte, 32), storage.VaultID{8})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.v.ReadSecrets(other.ReadKey()); !errors.Is(err, seal.ErrWrongReadKey) {
		t.Errorf("the key of another vault: %v", err)
	}
	if _, err := f.v.Snapshots(WithReadKey(t.Context(), other)); !errors.Is(err, seal.ErrNoReadKey) {
		t.Errorf("secrets of another vault: %v", err)
	}
}
