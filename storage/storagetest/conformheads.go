package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
)

func (s *suite) putHeads(heads ...storage.SignedHead) {
	s.Helper()
	if err := s.store.PutHeads(s.Context(), Raw(heads...)); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) refuseHeads(want error, heads ...storage.SignedHead) {
	s.Helper()
	if err := s.store.PutHeads(s.Context(), Raw(heads...)); !errors.Is(err, want) {
		s.Fatalf("%v, want %v", err, want)
	}
}

// wantHeads checks the chain and the forks of the suite's vault.
func (s *suite) wantHeads(links, forks []storage.SignedHead) {
	s.Helper()
	vaults, err := s.store.Heads(s.Context(), s.device.Owner)
	if err != nil || len(vaults) != 1 || vaults[0].Vault != s.vault {
		s.Fatalf("%d vaults, %v", len(vaults), err)
	}
	equal := func(raw [][]byte, heads []storage.SignedHead) bool {
		return slices.EqualFunc(raw, heads, func(b []byte, h storage.SignedHead) bool { return bytes.Equal(b, h.Raw) })
	}
	if v := vaults[0]; !equal(v.Links, links) || !equal(v.Forks, forks) {
		s.Fatalf("%d links and %d forks, or not the right ones; want %d and %d", len(v.Links), len(v.Forks), len(links), len(forks))
	}
}

func (s *suite) heads() {
	if vaults, err := s.store.Heads(s.Context(), s.device.Owner); err != nil || len(vaults) != 0 {
		s.Fatalf("empty store: %v, %v", vaults, err)
	}
	chain := s.device.Heads(s.T, s.vault, 8)
	s.putHeads(chain[2], chain[3]) // begins anywhere
	s.wantHeads(chain[2:4], nil)
	s.putHeads(chain[2:5]...) // known ones are skipped
	s.putHeads(chain[4])
	s.wantHeads(chain[2:5], nil)
	s.putHeads(chain[:3]...) // older than all that is known
	s.wantHeads(chain[2:5], nil)
	s.putHeads(chain[7]) // leaves a gap
	s.wantHeads(slices.Concat(chain[2:5], chain[7:]), nil)
	s.putHeads(chain[4:]...) // fills it
	s.wantHeads(chain[2:], nil)
}

func (s *suite) headsHostile() {
	chain := s.device.Heads(s.T, s.vault, 4)
	s.refuseHeads(storage.ErrHeadGap, chain[0], chain[2])
	s.refuseHeads(storage.ErrHeadGap, chain[1], chain[0])
	s.refuseHeads(storage.ErrHeadGap, chain[0], s.device.Head(s.T, Vault("other"), chain[0], ""))
	for i := range chain[0].Raw {
		altered := bytes.Clone(chain[0].Raw)
		altered[i] ^= 1
		err := s.store.PutHeads(s.Context(), [][]byte{altered})
		if !errors.Is(err, storage.ErrDenied) && !errors.Is(err, storage.ErrCorrupt) {
			s.Fatalf("byte %d altered: %v", i, err)
		}
	}
	for name, raw := range map[string][][]byte{"none": {}, "empty": {{}}, "many": make([][]byte, storage.MaxPutHeads+1)} {
		if err := s.store.PutHeads(s.Context(), raw); err == nil {
			s.Errorf("%s accepted", name)
		}
	}
	if vaults, err := s.store.Heads(s.Context(), s.device.Owner); err != nil || len(vaults) != 0 {
		s.Fatalf("something of it was kept: %v, %v", vaults, err)
	}
}

func (s *suite) headsFork() {
	chain := s.device.Heads(s.T, s.vault, 3)
	s.putHeads(chain...)
	twin := s.device.Head(s.T, s.vault, chain[0], "another state")
	s.refuseHeads(storage.ErrHeadFork, twin)
	s.wantHeads(chain, []storage.SignedHead{twin})
	beyond := s.device.Head(s.T, s.vault, s.device.Head(s.T, s.vault, twin, "x"), "number 4 after another 3")
	s.refuseHeads(storage.ErrHeadFork, beyond)
	s.wantHeads(chain, []storage.SignedHead{twin, beyond})
	s.putHeads(chain[2], s.device.Head(s.T, s.vault, chain[2], "goes on"))
	for i := range 2 * storage.MaxHeadForks {
		s.refuseHeads(storage.ErrHeadFork, s.device.Head(s.T, s.vault, chain[0], fmt.Sprint("state ", i)))
	}
	vaults, err := s.store.Heads(s.Context(), s.device.Owner)
	if err != nil || len(vaults[0].Links) != 4 || len(vaults[0].Forks) != storage.MaxHeadForks {
		s.Fatalf("chain disturbed by forks, or too many kept: %v", err)
	}
}

func (s *suite) headsEpoch() {
	chain := s.device.Heads(s.T, s.vault, 5)
	s.putHeads(chain...)
	recovered := s.device.With(grid.CapAll, 2)
	third := recovered.Head(s.T, s.vault, chain[1], "recovered from the second")
	s.putHeads(third)
	s.wantHeads([]storage.SignedHead{chain[0], chain[1], third}, chain[2:])
	s.refuseHeads(storage.ErrStaleEpoch, s.device.Head(s.T, s.vault, chain[4], "the old device goes on"))
	fourth := recovered.Head(s.T, s.vault, third, "")
	s.putHeads(third, fourth)
	s.wantHeads([]storage.SignedHead{chain[0], chain[1], third, fourth}, chain[2:])
	unsure := storage.Head{Vault: s.vault, Owner: s.device.Owner, Seq: 1, Grant: s.device.With(grid.CapRead, 3).Grant}
	if _, err := storage.SignHead(s.device.Key, unsure); !errors.Is(err, storage.ErrDenied) {
		s.Errorf("head under a grant that does not let write: %v", err)
	}
}

func (s *suite) headsOfOwners() {
	other := NewDevice("other owner")
	mine, theirs := s.device.Heads(s.T, s.vault, 1), other.Heads(s.T, s.vault, 2)
	second := s.device.Heads(s.T, Vault("second"), 1)
	s.putHeads(mine...)
	s.putHeads(theirs...)
	s.putHeads(second...)
	vaults, err := s.store.Heads(s.Context(), s.device.Owner)
	if err != nil || len(vaults) != 2 || bytes.Compare(vaults[0].Vault[:], vaults[1].Vault[:]) >= 0 {
		s.Fatalf("%d vaults, or not in order: %v", len(vaults), err)
	}
	vaults, err = s.store.Heads(s.Context(), other.Owner)
	if err != nil || len(vaults) != 1 || len(vaults[0].Links) != 2 || !bytes.Equal(vaults[0].Links[1], theirs[1].Raw) {
		s.Fatalf("another owner's vault of the same id: %v, %v", vaults, err)
	}
}

func (s *suite) headsBounded() {
	chain := s.device.Heads(s.T, s.vault, storage.MaxHeadLinks+10)
	s.putHeads(chain...)
	s.wantHeads(chain[10:], nil)
	for i := 1; i < storage.MaxOwnerVaults; i++ {
		s.putHeads(s.device.Heads(s.T, Vault(fmt.Sprint(i)), 1)...)
	}
	s.refuseHeads(storage.ErrQuota, s.device.Heads(s.T, Vault("one too many"), 1)...)
}

// headHistory: whatever a device publishes, everything that is kept can be read,
// the newest first.
func (s *suite) headHistory() {
	chain := s.device.Heads(s.T, s.vault, 3*storage.MaxHeadLinks)
	for part := range slices.Chunk(chain, storage.MaxPutHeads) {
		s.putHeads(part...)
	}
	twin := s.device.Head(s.T, s.vault, chain[0], "another second")
	s.refuseHeads(storage.ErrHeadFork, twin)
	recovered := s.device.With(grid.CapAll, 2).Head(s.T, s.vault, chain[99], "recovered from number 100")
	s.putHeads(recovered)
	want := append(slices.Clone(chain), twin, recovered)
	var below storage.HeadCursor
	for {
		raw, err := s.store.HeadHistory(s.Context(), s.device.Owner, s.vault, below)
		if err != nil || len(raw) > storage.MaxHeadLinks {
			s.Fatalf("page of %d heads: %v", len(raw), err)
		}
		if len(raw) == 0 {
			break
		}
		for _, b := range raw {
			head, err := storage.ParseHead(b)
			if err != nil {
				s.Fatal(err)
			}
			if !below.IsZero() && head.Cursor().Compare(below) >= 0 {
				s.Fatal("heads out of order")
			}
			below = head.Cursor()
			want = slices.DeleteFunc(want, func(h storage.SignedHead) bool { return h.ID == head.ID })
		}
	}
	if len(want) > 0 {
		s.Errorf("%d heads did not come, the first is number %d", len(want), want[0].Seq)
	}
	if raw, err := s.store.HeadHistory(s.Context(), s.device.Owner, Vault("unknown"), storage.HeadCursor{}); err != nil || len(raw) > 0 {
		s.Errorf("%d heads of an unknown vault, %v", len(raw), err)
	}
}
