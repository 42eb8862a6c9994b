package storagetest_test

import (
	"bytes"
	"errors"
	"testing"

	"gotong/storage"
	"gotong/storage/storagetest"
)

func TestMemory(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.RemoteShards { return storagetest.NewMemory() })
}

func TestFaultyBehaves(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.RemoteShards {
		return storagetest.NewFaulty(storagetest.NewMemory())
	})
}

func TestMemoryFull(t *testing.T) {
	m := storagetest.NewMemory()
	m.Capacity = 150
	segment := storagetest.NewDevice("a").Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 2, N: 3}, 100, "a")
	if err := storagetest.Put(t.Context(), m, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := storagetest.Put(t.Context(), m, segment, 1, nil); !errors.Is(err, storage.ErrFull) {
		t.Fatalf("%v, want ErrFull", err)
	}
	if err := m.DeleteShard(t.Context(), segment.ID(0)); err != nil {
		t.Fatal(err)
	}
	if err := storagetest.Put(t.Context(), m, segment, 1, nil); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryDamage(t *testing.T) {
	m := storagetest.NewMemory()
	segment := storagetest.NewDevice("a").Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 2, N: 3}, 100, "a")
	if err := storagetest.Put(t.Context(), m, segment, 0, nil); err != nil || !m.Damage(segment.ID(0)) {
		t.Fatal(err)
	}
	if _, err := storagetest.Get(t.Context(), m, segment.ID(0), 0, -1); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("%v, want ErrCorrupt", err)
	}
	answers, err := m.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
	if err != nil || answers[0].Shards[0].State != storage.ShardBad {
		t.Fatalf("%v, %v", answers, err)
	}
	if err := storagetest.Put(t.Context(), m, segment, 0, nil); err != nil {
		t.Fatal("a bad shard cannot be replaced:", err)
	}
	if data, err := storagetest.Get(t.Context(), m, segment.ID(0), 0, -1); err != nil || !bytes.Equal(data, segment.Shards[0]) {
		t.Fatal(err)
	}
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	segment := storagetest.NewDevice("a").Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 1}, 100, "a")
	get := func(f *storagetest.Faulty) error {
		data, err := storagetest.Get(t.Context(), f, segment.ID(0), 0, -1)
		if err == nil && !bytes.Equal(data, segment.Shards[0]) {
			return storage.ErrCorrupt
		}
		return err
	}
	put := func(f *storagetest.Faulty) error { return storagetest.Put(t.Context(), f, segment, 0, nil) }
	have := func(f *storagetest.Faulty) error { _, err := f.Have(t.Context(), nil); return err }
	for name, c := range map[string]struct {
		faults storagetest.Faults
		call   func(*storagetest.Faulty) error
		want   error
		stored bool // beforehand
	}{
		"down":    {storagetest.Faults{Down: broken}, have, broken, false},
		"create":  {storagetest.Faults{Create: broken}, put, broken, false},
		"write":   {storagetest.Faults{Write: broken}, put, broken, false},
		"commit":  {storagetest.Faults{Commit: broken}, put, broken, false},
		"open":    {storagetest.Faults{Open: broken}, get, broken, true},
		"read":    {storagetest.Faults{Read: broken}, get, broken, true},
		"garbage": {storagetest.Faults{Garbage: true}, get, storage.ErrCorrupt, true},
	} {
		f := storagetest.NewFaulty(storagetest.NewMemory())
		if c.stored {
			if err := put(f); err != nil {
				t.Fatal(err)
			}
		}
		f.Set(c.faults)
		if err := c.call(f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		f.Set(storagetest.Faults{})
		if err := get(f); c.stored != (err == nil) {
			t.Errorf("%s: afterwards %v", name, err)
		}
	}
	f := storagetest.NewFaulty(storagetest.NewMemory())
	f.Set(storagetest.Faults{Forget: true})
	if err := put(f); err != nil {
		t.Fatal(err)
	}
	if err := get(f); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a forgetful store remembers: %v", err)
	}
}
