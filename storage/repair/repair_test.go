package repair_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/storage"
	"gotong/storage/repair"
	"gotong/storage/segments"
)

// run gives f a world of n peers in a bubble.
func run(t *testing.T, n int, f func(t *testing.T, w *world)) {
	t.Helper()
	runAt(t, n, false, f)
}

func runAt(t *testing.T, n int, slow bool, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, n, slow)
		defer w.stopAll()
		f(t, w)
	})
}

// TestDeletedStaysDeleted: a holder was away while a segment was deleted and
// comes back with its shard. Nobody rebuilds the segment, the holder learns that
// it is deleted, and a deletion that is only claimed deletes nothing.
func TestDeletedStaysDeleted(t *testing.T) {
	run(t, 7, func(t *testing.T, w *world) {
		deleted, _ := w.put(1<<20, 1)
		kept, _ := w.put(1<<20, 2)
		var old *worldPeer
		for _, p := range w.peers[1:] {
			if len(p.holds(deleted)) > 0 {
				old = p
			}
		}
		old.shut()
		w.peers[0].rows.drop(deleted)
		told := 0
		for _, p := range w.peers[1:] {
			if p != old && told < 2 { // the others learn it from these
				told++
				if err := p.store.PutDeletions(t.Context(), [][]byte{w.deletion(1, deleted)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.peers[0].shut() // nobody to ask
		time.Sleep(5 * worldInterval)
		old.start()
		w.wait("the old holder knows", time.Minute, func() bool { return w.stored(deleted) == 0 })
		time.Sleep(worldGrace + 10*worldInterval)
		if n := w.stored(deleted); n != 0 {
			t.Errorf("%d shards of the deleted segment came back", n)
		}
		if n := w.stored(kept); n != 4 {
			t.Errorf("the other segment has %d shards", n)
		}
	})
}

// TestOwnerKnowsWhatIsTrue: the owner's rows say what is true: complete after a
// holder that was wiped has its shard back, lost when nobody can give the
// segment back, not lost when holders return.
func TestOwnerKnowsWhatIsTrue(t *testing.T) {
	run(t, 6, func(t *testing.T, w *world) {
		owner := w.peers[0]
		id, data := w.put(1<<20, 1)
		w.peers[1].wipe()
		w.peers[2].wipe()
		w.wait("all shards are there", worldGrace, func() bool { return w.stored(id) == 4 })
		w.wait("the owner knows", time.Minute, func() bool {
			row := owner.rows.row(id)
			return row.Complete && row.SurvivesSites == 2
		})
		for _, p := range w.peers[1:] {
			p.shut()
		}
		time.Sleep(worldGrace)
		if row := owner.rows.row(id); row.Lost {
			t.Error("the segment counts as lost while its holders may return")
		}
		w.wait("it is given up after a long time", time.Hour, func() bool { return owner.rows.row(id).Lost })
		for _, p := range w.peers[1:] {
			p.start()
		}
		w.wait("it is back", time.Hour, func() bool { return !owner.rows.row(id).Lost && owner.rows.row(id).Complete })
		got, err := owner.segments.Get(t.Context(), id, segments.Hint{})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("segment differs, %v", err)
		}
	})
}

// TestReturnIsSeenAtOnce: the owner's rows say that a segment is safer again as
// soon as its holder is back, though nothing was to be repaired.
func TestReturnIsSeenAtOnce(t *testing.T) {
	runAt(t, 5, true, func(t *testing.T, w *world) {
		owner := w.peers[0]
		id, _ := w.put(1<<20, 1)
		holder := w.peers[1]
		holder.shut()
		w.wait("the owner knows that a holder is away", 3*time.Hour, func() bool { return owner.rows.row(id).SurvivesSites == 1 })
		holder.start()
		owner.repairer.Returned()
		w.wait("the owner knows that it is back", time.Minute, func() bool { return owner.rows.row(id).SurvivesSites == 2 })
	})
}

// TestRepairUnderChaos: peers are wiped, go and come, and segments are deleted,
// in a random order in which never more than two shards are lost within the time
// that repair has. In the end every segment that was not deleted is whole, and
// none that was deleted is back.
func TestRepairUnderChaos(t *testing.T) {
	for seed := range uint64(2) {
		run(t, 8, func(t *testing.T, w *world) {
			rng := rand.New(rand.NewPCG(seed, 3))
			contents := map[storage.SegmentID][]byte{}
			var deleted []storage.SegmentID
			for i := range 4 {
				id, data := w.put(64<<10+i, uint64(i)+seed<<8)
				contents[id] = data
			}
			for step := range 5 {
				victims := rng.Perm(7)[:2]
				for _, v := range victims {
					switch p := w.peers[v+1]; rng.IntN(3) {
					case 0:
						p.wipe()
					case 1:
						p.shut()
					default:
						p.shut()
						p.start()
					}
				}
				if step%2 == 1 {
					for id := range contents {
						batch := w.deletion(uint64(len(deleted)+1), id)
						for _, p := range w.peers[1:] { // who is up; the others learn it later
							if p.alive() {
								if err := p.store.PutDeletions(t.Context(), [][]byte{batch}); err != nil {
									t.Fatal(err)
								}
							}
						}
						w.peers[0].rows.drop(id)
						deleted = append(deleted, id)
						delete(contents, id)
						break
					}
				}
				if owner := w.peers[0]; rng.IntN(2) == 0 && owner.alive() {
					owner.shut()
				} else if !owner.alive() {
					owner.start()
				}
				time.Sleep(worldGrace + 12*worldInterval)
				for _, p := range w.peers[1:] {
					if !p.alive() {
						p.start()
					}
				}
				time.Sleep(6 * worldInterval)
			}
			if !w.peers[0].alive() {
				w.peers[0].start()
			}
			time.Sleep(worldGrace)
			for id, data := range contents {
				if n := w.stored(id); n != 4 {
					t.Errorf("seed %d: segment %s has %d shards", seed, id.Short(), n)
				}
				got, err := w.peers[0].segments.Get(t.Context(), id, segments.Hint{})
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("seed %d: segment differs, %v", seed, err)
				}
			}
			for _, id := range deleted {
				if n := w.stored(id); n != 0 {
					t.Errorf("seed %d: %d shards of deleted segment %s are back", seed, n, id.Short())
				}
			}
		})
	}
}

// TestRemovedOwnerIsFreed: what an owner who was removed has here goes after the
// time that the store ran since, and not while the owner is a member.
func TestRemovedOwnerIsFreed(t *testing.T) {
	runAt(t, 5, true, func(t *testing.T, w *world) {
		id, _ := w.put(64<<10, 1)
		time.Sleep(50 * time.Hour)
		if w.stored(id) != 4 {
			t.Fatal("shards of a member are gone")
		}
		w.peers[0].shut()
		w.remove()
		time.Sleep(40 * time.Hour)
		if w.stored(id) == 0 {
			t.Error("freed too early")
		}
		time.Sleep(12 * time.Hour) // rounds are an hour apart
		if n := w.stored(id); n != 0 {
			t.Errorf("%d shards are left", n)
		}
	})
}

// TestCrowdedSiteGivesAway: two holders turn out to be on one site; one of the
// shards moves to another site and is not left behind.
func TestCrowdedSiteGivesAway(t *testing.T) {
	run(t, 8, func(t *testing.T, w *world) {
		id, _ := w.put(1<<20, 1)
		var holders []*worldPeer
		for _, p := range w.peers[1:] {
			if len(p.holds(id)) > 0 {
				holders = append(holders, p)
			}
		}
		for _, p := range holders[:2] {
			p.mu.Lock()
			p.label = "one house"
			p.mu.Unlock()
		}
		w.wait("one of the two gave its shard away", time.Minute, func() bool {
			return len(holders[0].holds(id))+len(holders[1].holds(id)) == 1
		})
		time.Sleep(10 * worldInterval)
		load, all := map[string]int{}, 0
		for _, p := range w.peers[1:] {
			n := len(p.holds(id))
			load[p.site()] += n
			all += n
		}
		for site, n := range load {
			if n > 1 {
				t.Errorf("%d shards on site %s", n, site)
			}
		}
		if all != 4 {
			t.Errorf("%d shards in all, want 4", all)
		}
	})
}

// TestScrubFindsRot: a bit flips on a disk; the shard is set aside and replaced
// within the period in which all is read.
func TestScrubFindsRot(t *testing.T) {
	runAt(t, 6, true, func(t *testing.T, w *world) {
		id, _ := w.put(1<<20, 1)
		var holder *worldPeer
		for _, p := range w.peers[1:] {
			if len(p.holds(id)) > 0 {
				holder = p
			}
		}
		shard := storage.ShardID{Segment: id, Index: holder.holds(id)[0]}
		holder.rot(shard)
		w.wait("the scrub finds it", 48*time.Hour, func() bool { return holder.repairer.Scrubbed().Bad > 0 })
		w.wait("it is replaced", 2*time.Hour, func() bool { // rounds are an hour and up to a tenth more apart
			return w.stored(id) == 4 && len(holder.holds(id)) > 0 && holder.store.Verify(t.Context(), shard) == nil
		})
	})
}

// TestReplacedDiskIsOneFault: a holder whose disk was replaced admits that it has
// nothing. That many shards were on the disk does not make it a liar.
func TestReplacedDiskIsOneFault(t *testing.T) {
	runAt(t, 5, true, func(t *testing.T, w *world) {
		owner, holder := w.peers[0], w.peers[1]
		var had []storage.ShardID
		for seed := range uint64(8) {
			id, _ := w.put(10_000, seed)
			for _, index := range holder.holds(id) {
				had = append(had, storage.ShardID{Segment: id, Index: index})
			}
		}
		if len(had) < 3 {
			t.Fatalf("the holder has only %d shards", len(had))
		}
		holder.wipe()
		for _, shard := range had {
			owner.repairer.Doubt(holder.device.Peer, shard)
		}
		time.Sleep(time.Minute)
		if r := owner.repairer.Standing(holder.device.Peer); r.Counts[repair.OutcomeMissing] != 1 || r.Grade != repair.GradePoor {
			t.Errorf("%d lost shards: %+v", len(had), r)
		}
	})
}

// TestAdmittedLossCountsOnce: a segment is beyond repair, and people try to read
// it again and again. Its holders admit that their shards are bad: that is one
// fault, and the rest of what they have is still believed.
func TestAdmittedLossCountsOnce(t *testing.T) {
	runAt(t, 5, true, func(t *testing.T, w *world) {
		id, _ := w.put(1<<20, 1)
		owner := w.peers[0]
		holders := owner.rows.row(id).Holders
		for _, p := range w.peers[1:] {
			p.rot(storage.ShardID{Segment: id, Index: p.holds(id)[0]})
		}
		for range 5 {
			for _, h := range holders {
				owner.repairer.Doubt(h.Peer, storage.ShardID{Segment: id, Index: h.Shard})
			}
			time.Sleep(time.Minute)
		}
		for _, p := range w.peers[1:] {
			report := owner.repairer.Standing(p.device.Peer)
			if wrong := report.Counts[repair.OutcomeWrong]; wrong != 1 || report.Grade == repair.GradeBad {
				t.Errorf("%d faults of a holder with one bad shard, grade %s", wrong, report.Grade)
			}
		}
	})
}

// TestDrainTellsOneThingAfterAnother: whoever is told how far a drain is sees it
// in order, one call at a time, though several shards are on their way at once.
func TestDrainTellsOneThingAfterAnother(t *testing.T) {
	runAt(t, 6, true, func(t *testing.T, w *world) {
		for seed := range uint64(8) {
			w.put(100_000, seed)
		}
		var mu sync.Mutex
		told, calls, telling := 0, 0, false
		state, err := w.peers[1].repairer.Drain(t.Context(), func(d repair.DrainProgress) {
			mu.Lock()
			if telling || d.Shards < told {
				t.Errorf("told of %d shards after %d, amid another call: %t", d.Shards, told, telling)
			}
			telling, told, calls = true, d.Shards, calls+1
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			telling = false
			mu.Unlock()
		})
		if err != nil || state.Left > 0 || calls < 2 {
			t.Errorf("%+v, told %d times: %v", state, calls, err)
		}
	})
}
