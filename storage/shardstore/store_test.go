package shardstore_test

import (
	"testing"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

// open opens a store that is closed, and verified, when the test ends.
func open(t *testing.T, dir string, cfg shardstore.Config) *shardstore.Store {
	t.Helper()
	s, err := shardstore.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.RemoteShards {
		return open(t, t.TempDir(), shardstore.Config{})
	})
}
