package shardstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

func headFile(dir string) string {
	return filepath.Join(dir, "heads", device.Owner.String(), vault.String())
}

func putHeads(t *testing.T, s *shardstore.Store, heads ...storage.SignedHead) {
	t.Helper()
	for len(heads) > 0 {
		n := min(len(heads), storage.MaxPutHeads)
		if err := s.PutHeads(t.Context(), storagetest.Raw(heads[:n]...)); err != nil {
			t.Fatal(err)
		}
		heads = heads[n:]
	}
}

func wantLinks(t *testing.T, s *shardstore.Store, forks int, want ...storage.SignedHead) {
	t.Helper()
	vaults, err := s.Heads(t.Context(), device.Owner)
	if err != nil || len(vaults) != 1 {
		t.Fatalf("%d vaults, %v", len(vaults), err)
	}
	if len(vaults[0].Links) != len(want) || len(vaults[0].Forks) != forks {
		t.Fatalf("%d links and %d forks, want %d and %d", len(vaults[0].Links), len(vaults[0].Forks), len(want), forks)
	}
	for i, raw := range vaults[0].Links {
		if !bytes.Equal(raw, want[i].Raw) {
			t.Fatalf("link %d is not head %d", i, want[i].Seq)
		}
	}
}

// TestHeadsSurviveRestart, evidence and superseded heads included.
func TestHeadsSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	chain := device.Heads(t, vault, 4)
	putHeads(t, s, chain...)
	twin := device.Head(t, vault, chain[1], "another third")
	if err := s.PutHeads(t.Context(), storagetest.Raw(twin)); !errors.Is(err, storage.ErrHeadFork) {
		t.Fatal(err)
	}
	recovered := device.With(grid.CapAll, 2).Head(t, vault, chain[2], "after recovery")
	putHeads(t, s, recovered)
	before := s.Stats()
	_ = s.Close()
	s = open(t, dir, shardstore.Config{})
	wantLinks(t, s, 2, chain[0], chain[1], chain[2], recovered)
	if after := s.Stats(); after.Bytes != before.Bytes || after.Owners[device.Owner] != before.Owners[device.Owner] {
		t.Errorf("accounts change from %+v to %+v", before, after)
	}
	old := device.Head(t, vault, chain[3], "old device")
	if err := s.PutHeads(t.Context(), storagetest.Raw(old)); !errors.Is(err, storage.ErrStaleEpoch) {
		t.Errorf("old epoch after restart: %v", err)
	}
}

// TestDamagedHeads: one damaged record does not take the others with it, and
// what was lost can be put again.
func TestDamagedHeads(t *testing.T) {
	chain := device.Heads(t, vault, 3)
	record := int64(17 + len(chain[0].Raw) + 16)
	for name, c := range map[string]struct {
		change func(name string)
		left   []storage.SignedHead
	}{
		"first":      {func(f string) { rewrite(t, f, func(b []byte) { b[60] ^= 1 }) }, chain[1:]},
		"its length": {func(f string) { rewrite(t, f, func(b []byte) { b[15] ^= 1 }) }, chain[1:]},
		"middle":     {func(f string) { rewrite(t, f, func(b []byte) { b[record+100] ^= 1 }) }, []storage.SignedHead{chain[0], chain[2]}},
		"torn tail":  {func(f string) { truncate(t, f, 3*record-1) }, chain[:2]},
		"garbage": {func(f string) {
			b := make([]byte, 1000)
			_, _ = rand.NewChaCha8([32]byte{}).Read(b)
			appendTo(t, f, append(b, "gthr"...))
		}, chain},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, shardstore.Config{})
			putHeads(t, s, chain...)
			_ = s.Close()
			c.change(headFile(dir))
			s = open(t, dir, shardstore.Config{})
			wantLinks(t, s, 0, c.left...)
			if len(s.Problems()) != 1 {
				t.Errorf("problems: %v", s.Problems())
			}
			fourth := device.Head(t, vault, chain[2], "fourth")
			putHeads(t, s, append(chain, fourth)...)
			_ = s.Close()
			s = open(t, dir, shardstore.Config{})
			want := append(chain[:3:3], fourth)
			if name == "first" || name == "its length" {
				want = want[1:] // older than all that was known
			}
			wantLinks(t, s, 0, want...)
		})
	}
}

func appendTo(t *testing.T, name string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestHeadsWithinFloorStay: a full file drops what is older than its floor by
// the time that the store was open, and refuses when nothing is.
func TestHeadsWithinFloorStay(t *testing.T) {
	const limit = 1024
	chain := device.Heads(t, vault, limit+200)
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		s := open(t, "", shardstore.Config{FS: files})
		putHeads(t, s, chain[:500]...)
		time.Sleep(4 * 24 * time.Hour)
		_ = s.Close()
		time.Sleep(30 * 24 * time.Hour) // does not count: the store is closed
		s = open(t, "", shardstore.Config{FS: files})
		putHeads(t, s, chain[500:limit]...)
		if err := s.PutHeads(t.Context(), storagetest.Raw(chain[limit])); !errors.Is(err, storage.ErrQuota) {
			t.Fatalf("more heads than fit, all within their floor: %v", err)
		}
		time.Sleep(4 * 24 * time.Hour) // the first 499 were replaced more than 7 days ago
		before := s.Stats().Bytes
		putHeads(t, s, chain[limit:]...)
		if after := s.Stats().Bytes; after >= before {
			t.Errorf("file grew from %d to %d bytes although half of it was dropped", before, after)
		}
		_ = s.Close()
		s = open(t, "", shardstore.Config{FS: files.crash(nil)})
		wantLinks(t, s, 0, chain[len(chain)-storage.MaxHeadLinks:]...)
		if got, want := s.Stats().Owners[device.Owner].HeadBytes, int64(len(chain)-499)*int64(17+16+len(chain[0].Raw)); got != want {
			t.Errorf("%d bytes of heads, want %d", got, want)
		}
	})
}

// TestHeadsOverQuota: a small allowance lets an owner who is at the quota
// publish heads all the same.
func TestHeadsOverQuota(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return 0 }})
	putHeads(t, s, device.Heads(t, vault, 3)...)
	big := bytes.Repeat([]byte("x"), 60<<10)
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		err = s.PutHeads(t.Context(), storagetest.Raw(device.Head(t, storagetest.Vault(fmt.Sprint(i%storage.MaxOwnerVaults)), storage.SignedHead{
			Head: storage.Head{Seq: uint64(i + 1)}, ID: storage.HeadID{1},
		}, string(big))))
	}
	if !errors.Is(err, storage.ErrQuota) {
		t.Fatalf("%v, want ErrQuota", err)
	}
	if got := s.Stats().Owners[device.Owner].HeadBytes; got > 17<<20 {
		t.Fatalf("%d bytes of heads", got)
	}
}

// TestManyHeadsPushNothingOut: a device in the wrong hands publishes heads until
// its room is used up. The state of before stays for its floor from then on, all
// of it can be read, and the owner still gets in with a new epoch.
func TestManyHeadsPushNothingOut(t *testing.T) {
	const limit = 1024
	chain := device.Heads(t, vault, limit+2)
	recovered := device.With(grid.CapAll, 2)
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		s := open(t, "", shardstore.Config{FS: files})
		putHeads(t, s, chain[:2]...)
		time.Sleep(100 * 24 * time.Hour) // the second is old, but the newest state
		putHeads(t, s, chain[2:limit+1]...)
		for range 2 {
			if err := s.PutHeads(t.Context(), storagetest.Raw(chain[limit+1])); !errors.Is(err, storage.ErrQuota) {
				t.Fatalf("%v, want ErrQuota", err)
			}
			wantHistory(t, s, chain[1:limit+1]...)
			time.Sleep(7*24*time.Hour - time.Minute)
		}
		third := recovered.Head(t, vault, chain[1], "taken back")
		putHeads(t, s, third)
		wantHistory(t, s, append(slices.Clone(chain[1:limit+1]), third)...)
		for i := range 100 {
			third = recovered.Head(t, vault, third, fmt.Sprint(i))
			putHeads(t, s, third)
		}
		wantLinks(t, s, storage.MaxHeadForks, newestOf(t, s)...)
		_ = s.Close()
		s = open(t, "", shardstore.Config{FS: files})
		if got := newestOf(t, s); got[len(got)-1].ID != third.ID {
			t.Error("the newest head is not the owner's")
		}
	})
}

// newestOf returns the links of the one vault.
func newestOf(t *testing.T, s *shardstore.Store) []storage.SignedHead {
	t.Helper()
	vaults, err := s.Heads(t.Context(), device.Owner)
	if err != nil || len(vaults) != 1 {
		t.Fatal(vaults, err)
	}
	var out []storage.SignedHead
	for _, raw := range vaults[0].Links {
		head, err := storage.ParseHead(raw)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, head)
	}
	return out
}

// wantHistory checks that exactly these heads can be read, page by page.
func wantHistory(t *testing.T, s *shardstore.Store, want ...storage.SignedHead) {
	t.Helper()
	missing := map[storage.HeadID]bool{}
	for _, head := range want {
		missing[head.ID] = true
	}
	var below storage.HeadCursor
	for {
		raw, err := s.HeadHistory(t.Context(), device.Owner, vault, below)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) == 0 {
			break
		}
		for _, b := range raw {
			head, err := storage.ParseHead(b)
			if err != nil || !missing[head.ID] {
				t.Fatalf("head %d came twice or should not be there: %v", head.Seq, err)
			}
			delete(missing, head.ID)
			below = head.Cursor()
		}
	}
	if len(missing) > 0 {
		t.Fatalf("%d of %d heads are gone", len(missing), len(want))
	}
}

// TestRecoveryHasRoom: an owner whose device used up all quota and allowance
// still publishes under a new epoch.
func TestRecoveryHasRoom(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return 0 }})
	big := string(bytes.Repeat([]byte("x"), 60<<10))
	var first, prev storage.SignedHead
	var err error
	for err == nil {
		if !prev.IsZero() && first.IsZero() {
			first = prev
		}
		prev = device.Head(t, vault, prev, big)
		err = s.PutHeads(t.Context(), storagetest.Raw(prev))
	}
	if !errors.Is(err, storage.ErrQuota) {
		t.Fatal(err)
	}
	head := device.With(grid.CapAll, 2).Head(t, vault, first, "taken back")
	if err := s.PutHeads(t.Context(), storagetest.Raw(head)); err != nil {
		t.Fatal(err)
	}
}
