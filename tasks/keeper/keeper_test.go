package keeper

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/tasks"
)

// bubble runs f with a world of machines whose owners are given, in a bubble.
func bubble(t *testing.T, f func(t *testing.T, w *world), owners ...int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, owners...)
		defer w.stop()
		w.start()
		f(t, w)
	})
}

// keepersOf returns the machines that keep a job, the driver first.
func (w *world) keepersOf(job tasks.JobID) (out []*machine) {
	for _, m := range w.nodes {
		if k := m.up(); k != nil && k.job(job) != nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *machine) int { return w.driving(b, job) - w.driving(a, job) })
	return out
}

// underWay waits until a job has all its keepers, of which the first drives it.
func (w *world) underWay(job tasks.JobID) (keepers []*machine) {
	w.t.Helper()
	w.wait("all keepers and a driver", time.Minute, func() bool {
		keepers = w.keepersOf(job)
		return len(keepers) == Copies && w.driving(keepers[0], job) == 1
	})
	return keepers
}

func (w *world) driving(m *machine, job tasks.JobID) int {
	j := m.up().job(job)
	if j == nil { // forgotten just now
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.driving != nil {
		return 1
	}
	return 0
}

// over waits for the end of a job everywhere.
func (w *world) over(job tasks.JobID) {
	w.t.Helper()
	w.wait("end of the job everywhere", 3*time.Minute, func() bool { return w.agreed(job) })
}

func TestSubmitterVanishes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(nil)
		w.nodes[0].kill()
		w.nodes[0].disk = newMemDisk()
		w.over(job)
		w.check(t, job)
		if n := len(w.keepersOf(job)); n != Copies {
			t.Errorf("%d keepers", n)
		}
	}, 0, 1, 2, 3, 4)
}

func TestPolicies(t *testing.T) {
	for policy, want := range map[Policy]func(owner, keeper grid.OwnerID) bool{
		KeepersMine:    func(o, k grid.OwnerID) bool { return o == k },
		KeepersFriends: func(o, k grid.OwnerID) bool { return o != k },
		KeepersAny:     func(grid.OwnerID, grid.OwnerID) bool { return true },
	} {
		t.Run(string(policy), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				job := w.nodes[0].submit(func(p *Plan) { p.Keepers = policy })
				w.over(job)
				for _, m := range w.keepersOf(job) {
					if m == w.nodes[0] || !want(w.nodes[0].owner, m.owner) {
						t.Errorf("kept by %s", m.name)
					}
				}
			}, 0, 0, 0, 0, 1, 2, 3)
		})
	}
}

// TestKeepersOnManySites: two of one owner do not keep a job while others can.
func TestKeepersOnManySites(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(nil)
		w.over(job)
		seen := map[grid.OwnerID]bool{}
		for _, m := range w.keepersOf(job) {
			if seen[m.owner] {
				t.Errorf("two keepers of one owner")
			}
			seen[m.owner] = true
		}
	}, 0, 1, 1, 1, 1, 2, 3)
}

func TestAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, raw := w.nodes[0].plan(nil)
		s, err := w.nodes[0].up().Submit(t.Context(), raw)
		if err != nil || !s.Alone {
			t.Errorf("alone: %+v %v", s, err)
		}
		w.nodes[0].kill()
		w.nodes[0].config = func(c *Config) { c.Jobs = -1 }
		w.nodes[0].start()
		_, raw = w.nodes[0].plan(nil)
		if _, err := w.nodes[0].up().Submit(t.Context(), raw); !errors.Is(err, ErrTooFew) || !strings.Contains(err.Error(), "tasks.keep_jobs") {
			t.Errorf("nobody: %v", err)
		}
	}, 0)
	bubble(t, func(t *testing.T, w *world) {
		_, raw := w.nodes[0].plan(func(p *Plan) { p.Keepers = KeepersFriends })
		s, err := w.nodes[0].up().Submit(t.Context(), raw)
		if err != nil || s.Alone || !slices.Equal(s.Durable, []grid.PeerID{w.nodes[1].id}) {
			t.Errorf("one friend: %+v %v", s, err)
		}
	}, 0, 1)
}

// TestRefusals: peers that refuse are passed over, and when all do, each reason
// is told.
func TestRefusals(t *testing.T) {
	refuse := func(c *Config) { c.Jobs = -1 }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 0, 1, 2, 3, 4, 5, 6)
		defer w.stop()
		for _, m := range w.nodes[1:5] {
			m.config = refuse
		}
		w.start()
		job := w.nodes[0].submit(func(p *Plan) { p.Keepers = KeepersFriends })
		w.over2(job, 2)
		for _, m := range w.keepersOf(job) {
			if m != w.nodes[5] && m != w.nodes[6] {
				t.Errorf("kept by %s", m.name)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0, 1, 2)
		defer w.stop()
		w.nodes[0].config, w.nodes[1].config = refuse, refuse
		w.nodes[2].config = func(c *Config) { c.Bytes = 1 }
		w.start()
		_, raw := w.nodes[0].plan(nil)
		_, err := w.nodes[0].up().Submit(t.Context(), raw)
		if !errors.Is(err, ErrTooFew) || !strings.Contains(err.Error(), "tasks.keep_jobs") || !strings.Contains(err.Error(), "tasks.keep_bytes") {
			t.Error(err)
		}
	})
}

// over2 waits until a job has ended at n keepers.
func (w *world) over2(job tasks.JobID, n int) {
	w.t.Helper()
	w.wait("end of the job", 3*time.Minute, func() bool {
		ended := 0
		for _, j := range w.copiesOf(job) {
			if f := fold(w.t, j); f.ended[f.highest] || f.cancelled[f.highest] {
				ended++
			}
		}
		return ended >= n
	})
}

// TestDriverIsIntroduced: it begins when the other keepers have heard of it, or did not
// answer.
func TestDriverIsIntroduced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0, 1, 2, 3)
		defer w.stop()
		for _, m := range w.nodes {
			m.config = func(c *Config) {
				c.Drive = func(ctx context.Context, job Driven) error {
					j := m.up().job(job.Job)
					j.mu.Lock()
					d := j.driving
					j.mu.Unlock()
					links := 0
					if !d.all(func(l *link) bool { links++; return l.tried }) || links != Copies-1 {
						t.Errorf("%s has tried %d links", m.name, links)
					}
					return m.drive(ctx, job)
				}
			}
		}
		w.start()
		job := w.nodes[0].submit(nil)
		w.over(job)
	})
}

// TestRefusedRecordIsNotHandedOn: others get what is in the journal, and nothing in its
// place.
func TestRefusedRecordIsNotHandedOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		m := w.nodes[0]
		m.kill()
		m.config = func(c *Config) { c.Bytes = 1000 }
		m.start()
		job, raw := m.plan(nil)
		journal, err := (&memStore{newMemDisk(), &power{}}).Create(job, raw)
		if err != nil {
			t.Fatal(err)
		}
		j, err := m.up().open(journal)
		if err != nil {
			t.Fatal(err)
		}
		s := Stream{1, m.id}
		if err := j.own(s, [][]byte{encode(entry{Stream: s, Cancelled: strings.Repeat("x", 1000)})}); !errors.Is(err, ErrRefused) {
			t.Fatalf("a record beyond the bound: %v", err)
		}
		small := encode(entry{Stream: s, Ended: true})
		if err := j.own(s, [][]byte{small}); err != nil {
			t.Fatal(err)
		}
		batches, _ := j.newest(Vector{}, s)
		if len(batches) != 1 || len(batches[0].Records) != 1 || !slices.Equal(batches[0].Records[0], small) || j.tailBytes != len(small) {
			t.Errorf("%d batches, %d bytes kept", len(batches), j.tailBytes)
		}
	}, 0)
}

// TestDriverHangs: a driver that nothing reaches any more is followed by
// another, and when it is back it stops.
func TestDriverHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.tasks, w.pace = 60, 3*time.Second // more than either can do alone meanwhile
		job := w.nodes[0].submit(nil)
		keepers := w.underWay(job)
		for _, m := range w.nodes {
			if m != keepers[0] {
				w.sever(keepers[0], m)
			}
		}
		w.wait("another driver", time.Minute, func() bool { return w.driving(keepers[1], job)+w.driving(keepers[2], job) == 1 })
		if w.driving(keepers[0], job) != 1 {
			t.Error("the first driver has stopped already")
		}
		w.mu.Lock()
		clear(w.cut)
		w.mu.Unlock()
		w.wait("one driver", 30*time.Second, func() bool {
			return w.driving(keepers[0], job) == 0 && w.driving(keepers[1], job)+w.driving(keepers[2], job) <= 1
		})
		w.over(job)
		w.check(t, job)
	}, 0, 1, 2, 3, 4)
}

func (w *world) sever(a, b *machine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]grid.PeerID{a.id, b.id}], w.cut[[2]grid.PeerID{b.id, a.id}] = true, true
}

// TestKeeperIsReplaced: one that stays away gives way to another peer, and three
// have the whole job.
func TestKeeperIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.tasks, w.pace = 60, 3*time.Second
		job := w.nodes[0].submit(nil)
		gone := w.underWay(job)[2]
		gone.kill()
		w.wait("a new keeper", time.Minute, func() bool { return len(w.keepersOf(job)) == Copies })
		gone.start() // a copy more
		w.over(job)
		w.check(t, job)
	}, 0, 1, 2, 3, 4)
}

// TestWipedKeeperGetsTheJobBack: its disk was lost.
func TestWipedKeeperGetsTheJobBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(nil)
		wiped := w.underWay(job)[1]
		wiped.kill()
		wiped.disk = newMemDisk()
		wiped.start()
		w.over(job)
		if len(w.keepersOf(job)) != Copies || wiped.up().job(job) == nil {
			t.Error("it does not keep the job")
		}
	}, 0, 1, 2, 3)
}

func TestCancelAndRetry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		owner, other, stranger := w.nodes[0], w.nodes[1], w.nodes[2]
		job := owner.submit(func(p *Plan) { p.Keepers = KeepersFriends })
		owner.kill()
		time.Sleep(2 * time.Second)
		if _, err := stranger.up().Say(t.Context(), job, KindCancel, "I can"); !errors.Is(err, ErrUnknownJob) && !errors.Is(err, ErrDenied) {
			t.Errorf("a stranger cancels: %v", err)
		}
		if _, err := other.up().Say(t.Context(), job, KindRetry, ""); !errors.Is(err, ErrNotOver) {
			t.Errorf("retry of a running job: %v", err)
		}
		if told, err := other.up().Say(t.Context(), job, KindCancel, "changed my mind"); err != nil || len(told) == 0 {
			t.Fatalf("cancel: %v %v", told, err)
		}
		w.over(job)
		for m, j := range w.copiesOf(job) {
			if f := fold(t, j); !f.cancelled[0] || len(f.results) == w.tasks {
				t.Errorf("%s: not cancelled: %d results", m.name, len(f.results))
			}
		}
		if _, err := other.up().Say(t.Context(), job, KindCancel, ""); !errors.Is(err, ErrOver) {
			t.Errorf("cancel twice: %v", err)
		}
		if _, err := other.up().Say(t.Context(), job, KindRetry, ""); err != nil {
			t.Fatal(err)
		}
		w.wait("all results", 3*time.Minute, func() bool {
			for _, j := range w.copiesOf(job) {
				if f := fold(t, j); f.highest != 1 || !f.ended[1] || len(f.results) != w.tasks {
					return false
				}
			}
			return true
		})
	}, 0, 0, 1, 2, 3)
}

// TestRetryActsAtOnce: right after the end, and long after it, the keepers do not
// first wait for a driver.
func TestRetryActsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(nil)
		w.over(job)
		for generation, pause := range []time.Duration{0, time.Second, time.Minute} {
			time.Sleep(pause)
			if _, err := w.nodes[0].up().Say(t.Context(), job, KindRetry, ""); err != nil {
				t.Fatal(err)
			}
			w.wait("a new generation", 2*time.Second, func() bool {
				for _, j := range w.copiesOf(job) {
					if fold(t, j).highest == uint32(generation+1) {
						return true
					}
				}
				return false
			})
			w.wait("the end", 3*time.Minute, func() bool {
				for _, j := range w.copiesOf(job) {
					if !fold(t, j).ended[uint32(generation+1)] {
						return false
					}
				}
				return true
			})
		}
	}, 0, 1, 2, 3)
}

func TestRemoveAndRetention(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(nil)
		kept := w.nodes[0].submit(nil)
		away := w.underWay(job)[1]
		away.kill()
		if _, err := w.nodes[0].up().Say(t.Context(), job, KindRemove, ""); err != nil {
			t.Fatal(err)
		}
		w.wait("removed", 10*time.Second, func() bool { return len(w.keepersOf(job)) == 0 })
		away.start()
		w.over2(kept, 1)
		w.wait("forgotten after its retention", 2*time.Hour, func() bool { return len(w.keepersOf(kept)) == 0 })
	}, 0, 1, 2, 3, 4)
}

// TestOwnerFetches: a device that knew nothing of the job reads it, and nobody
// else's device does.
func TestOwnerFetches(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(func(p *Plan) { p.Keepers = KeepersFriends })
		w.nodes[0].kill()
		w.over(job)
		device, stranger := w.nodes[1], w.nodes[2]
		found, failed := device.up().List(t.Context())
		if len(found) != 1 || found[0].Job != job || len(found[0].At) != Copies || !slices.Equal(failed, []grid.PeerID{w.nodes[0].id}) {
			t.Fatalf("%+v %v", found, failed)
		}
		copies := &memStore{device.copies, &power{}}
		c, err := device.up().Fetch(t.Context(), job, copies)
		if err != nil {
			t.Fatal(err)
		}
		if f := fold(t, c.Journal); len(f.results) != w.tasks || len(c.Keepers) != Copies || c.Kept {
			t.Errorf("%d results, %+v", len(f.results), c)
		}
		before := len(device.copies.jobs[job].records)
		if _, err := device.up().Fetch(t.Context(), job, copies); err != nil || len(device.copies.jobs[job].records) != before {
			t.Errorf("fetched again: %v", err)
		}
		keeper := w.keepersOf(job)
		if found, _ := stranger.up().List(t.Context()); len(found) != 0 {
			t.Errorf("a stranger sees %d jobs", len(found))
		}
		for _, m := range keeper {
			v := wire{stranger, m}
			if stranger == m {
				continue
			}
			if _, err := v.Plan(t.Context(), StateRequest{Job: job}); !errors.Is(err, ErrUnknownJob) {
				t.Errorf("a stranger reads the plan: %v", err)
			}
			if err := v.Read(t.Context(), ReadRequest{Job: job}, func([]Batch) error { return nil }); !errors.Is(err, ErrUnknownJob) {
				t.Errorf("a stranger reads the journal: %v", err)
			}
		}
	}, 0, 0, 1, 2, 3, 4, 5)
}

// TestOwnerFetchesTwiceAtOnce: two commands that look at one job get it whole, each
// record once.
func TestOwnerFetchesTwiceAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(func(p *Plan) { p.Keepers = KeepersFriends })
		w.nodes[0].kill()
		w.over(job)
		device := w.nodes[1]
		copies := &memStore{device.copies, &power{}}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := device.up().Fetch(t.Context(), job, copies); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := len(w.keepersOf(job)[0].disk.jobs[job].records)
		if got := len(device.copies.jobs[job].records); got != want {
			t.Errorf("%d records of %d", got, want)
		}
		if k := device.up(); len(k.copying) != 0 {
			t.Errorf("%d turns are left", len(k.copying))
		}
	}, 0, 0, 1, 2, 3, 4)
}

// TestHostileKeepers: what no honest peer says is refused and changes nothing.
func TestHostileKeepers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		owner, hostile, victim := w.nodes[0], w.nodes[1], w.nodes[2]
		ctx := context.Background()
		job, raw := owner.plan(nil)
		list := List{Number: 1, Peers: []grid.PeerID{victim.id, hostile.id}}
		for name, put := range map[string]PutRequest{
			"altered":      {Plan: append(slices.Clone(raw[:len(raw)-1]), raw[len(raw)-1]^1), List: list},
			"nobody keeps": {Plan: raw},
			"not a keeper": {Plan: raw, List: List{Number: 1, Peers: []grid.PeerID{hostile.id}}},
			"of another owner": {Plan: func() []byte {
				_, forged := hostile.plan(func(p *Plan) { p.Owner = owner.owner })
				return forged
			}(), List: list},
			"for ever": {Plan: func() []byte {
				_, long := owner.plan(func(p *Plan) { p.Expires = time.Now().Add(10 * maxLife) })
				return long
			}(), List: list},
			"over": {Plan: func() []byte {
				_, old := owner.plan(func(p *Plan) { p.Expires = time.Now().Add(-time.Hour) })
				return old
			}(), List: list},
		} {
			if err := (wire{hostile, victim}).Put(ctx, put); err == nil {
				t.Errorf("a plan is taken: %s", name)
			}
		}
		if len(victim.up().jobs) != 0 {
			t.Fatal("something was kept")
		}
		if err := (wire{hostile, victim}).Put(ctx, PutRequest{Plan: raw, List: list}); err != nil {
			t.Fatal(err) // the plan proves itself, whoever brings it
		}
		v := wire{hostile, victim}
		know := proof(raw, job, hostile.id, victim.id)
		s := Stream{50, hostile.id}
		good := encode(entry{Stream: s, At: time.Now()})
		cancel := encode(entry{Stream: s, At: time.Now(), Cancelled: "because"})
		for name, r := range map[string]AppendRequest{
			"no proof":         {Epoch: 50, Batches: []Batch{{s, 0, [][]byte{good}}}},
			"another's proof":  {Epoch: 50, Proof: proof(raw, job, victim.id, hostile.id)},
			"epoch 0":          {Epoch: 0, Proof: know},
			"epoch far ahead":  {Epoch: 1 << 60, Proof: know},
			"gap":              {Epoch: 50, Proof: know, Batches: []Batch{{s, 5, [][]byte{good}}}},
			"other stream":     {Epoch: 50, Proof: know, Batches: []Batch{{Stream{2, victim.id}, 0, [][]byte{good}}}},
			"nonsense":         {Epoch: 50, Proof: know, Batches: []Batch{{s, 0, [][]byte{[]byte("{")}}}},
			"forged cancel":    {Epoch: 50, Proof: know, Batches: []Batch{{s, 0, [][]byte{cancel}}}},
			"record too large": {Epoch: 50, Proof: know, Batches: []Batch{{s, 0, [][]byte{make([]byte, MaxRecordBytes+1)}}}},
		} {
			r.Job, r.List = job, list
			if _, err := v.Append(ctx, r); err == nil {
				t.Errorf("taken: %s", name)
			}
		}
		for name, key := range map[string]*machine{"hostile": hostile, "victim": victim} {
			forged, err := SignStatement(key.key, Statement{Job: job, Kind: KindRemove, At: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Say(ctx, job, forged); !errors.Is(err, ErrDenied) {
				t.Errorf("%s removes a job: %v", name, err)
			}
		}
		j := victim.up().job(job)
		j.mu.Lock()
		defer j.mu.Unlock()
		for stream, n := range j.have {
			if stream.Driver != victim.id && n > 0 {
				t.Errorf("%d records of %s", n, stream.Driver.Short())
			}
		}
	}, 0, 1, 2)
}

func TestStatementsAreExact(t *testing.T) {
	w := newWorld(t, 1, 0)
	s := Statement{Job: tasks.JobID{1}, Kind: KindRetry, Generation: 3, At: time.Unix(1_800_000_000, 0).UTC(), Why: "again", Signer: w.nodes[0].id}
	raw, err := SignStatement(w.nodes[0].key, s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenStatement(raw); err != nil || got != s {
		t.Errorf("%+v %v", got, err)
	}
	for i := range raw {
		changed := slices.Clone(raw)
		changed[i] ^= 1
		if _, err := OpenStatement(changed); !errors.Is(err, ErrDenied) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	s.Kind, s.Why = 9, strings.Repeat("ä", 1000)
	if raw, err = SignStatement(w.nodes[0].key, s); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStatement(raw); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown kind: %v", err)
	}
}

func FuzzOpenStatement(f *testing.F) {
	w := newWorld(f, 1, 0)
	raw, err := SignStatement(w.nodes[0].key, Statement{Job: tasks.JobID{1}, Kind: KindCancel, At: time.Unix(1, 0), Why: "w"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[96:])
	f.Fuzz(func(t *testing.T, body []byte) {
		raw := identity.Sign(w.nodes[0].key, DomainStatement, body).Encode()
		s, err := OpenStatement(raw)
		if err != nil {
			return
		}
		again, err := SignStatement(w.nodes[0].key, s)
		if err != nil {
			return // text that is not UTF-8
		}
		if got, err := OpenStatement(again); err != nil || got != s {
			t.Fatalf("%+v came back as %+v, %v", s, got, err)
		}
	})
}

func FuzzParseNote(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _, _ = parseNote(raw) // must not panic
	})
}

func FuzzMark(f *testing.F) {
	raw, err := JobBook{}.Begun(Stream{3, grid.PeerID{1}}, 2, time.Unix(1_800_000_000, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = JobBook{}.Mark(raw) // must not panic
	})
}

// TestMarksAreThoseOfRecords: what a keeper reads of a record without parsing it
// is what package jobs wrote.
func TestMarksAreThoseOfRecords(t *testing.T) {
	s, at := Stream{7, grid.PeerID{9}}, time.Unix(1_800_000_000, 5).UTC()
	book := JobBook{}
	for name, c := range map[string]struct {
		make func() ([]byte, error)
		want Mark
	}{
		"begun":     {func() ([]byte, error) { return book.Begun(s, 2, at) }, Mark{Stream: s, At: at, Generation: 2}},
		"cancelled": {func() ([]byte, error) { return book.Cancelled(s, 2, at, "why") }, Mark{Stream: s, At: at, Generation: 2, Ended: true, ByOwner: KindCancel}},
		"expired":   {func() ([]byte, error) { return book.Expired(s, 2, at) }, Mark{Stream: s, At: at, Generation: 2, Ended: true}},
	} {
		raw, err := c.make()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := book.Mark(raw); err != nil || got != c.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}
