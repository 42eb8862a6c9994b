package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

var (
	twoOfThree = tasks.Verify{Mode: tasks.VerifyQuorum, Need: 2, Of: 3}
	adaptive   = tasks.Verify{Mode: tasks.VerifyAdaptive}
)

// at puts a worker on a site.
func at(site string) func(*fakeWorker) { return func(w *fakeWorker) { w.site = site } }

// lies makes a worker falsify a share of its results: what it prints then is
// the arguments and a text.
func lies(share float64, text string, seed *rand.Rand) func(*fakeWorker) {
	return func(w *fakeWorker) {
		honest, rng := w.run, rand.New(rand.NewPCG(seed.Uint64(), seed.Uint64()))
		w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
			r := honest(ctx, o)
			w.mu.Lock()
			defer w.mu.Unlock()
			if rng.Float64() < share {
				r.Stdout = append(r.Stdout, text...)
				w.lied++
			}
			return r
		}
	}
}

func all(changes ...func(*fakeWorker)) func(*fakeWorker) {
	return func(w *fakeWorker) {
		for _, change := range changes {
			change(w)
		}
	}
}

// verified is a receiver that keeps the standing result of each task and
// checks what holds for each delivery.
type verified struct {
	standing map[int]*scheduler.Accepted
	voided   map[int]bool
	caught   []scheduler.Caught
	inOrder  bool
}

func (v *verified) receive(a *scheduler.Accepted) error {
	before := v.standing[a.Task.Index]
	switch revised := a.Replaces != [32]byte{}; {
	case revised != (before != nil):
		return fmt.Errorf("task %d: delivered before: %v, revised: %v", a.Task.Index, before != nil, revised)
	case revised && before.Digest() != a.Replaces:
		return fmt.Errorf("task %d replaces another result", a.Task.Index)
	case !revised && v.inOrder && a.Task.Index != len(v.standing):
		return fmt.Errorf("task %d delivered at position %d", a.Task.Index, len(v.standing))
	}
	seen := map[string]bool{}
	for _, vote := range a.Votes {
		if seen[vote.Site] || seen[vote.Peer.String()] || vote.Result != a.Digest() {
			return fmt.Errorf("task %d: votes %v", a.Task.Index, a.Votes)
		}
		seen[vote.Site], seen[vote.Peer.String()] = true, true
	}
	if a.Checked != (len(a.Votes) >= 2) {
		return fmt.Errorf("task %d: checked %v by %d", a.Task.Index, a.Checked, len(a.Votes))
	}
	for _, c := range v.caught {
		if !a.Checked && a.Peer == c.Vote.Peer {
			return fmt.Errorf("task %d: unchecked result of a peer that was caught", a.Task.Index)
		}
	}
	delete(v.voided, a.Task.Index)
	v.standing[a.Task.Index] = a
	return nil
}

func (v *verified) catch(c scheduler.Caught) error {
	for _, other := range v.caught {
		if other.Vote.Peer == c.Vote.Peer {
			return fmt.Errorf("%s was caught twice", c.Vote.Peer.Short())
		}
	}
	if len(c.Against) < 2 {
		return fmt.Errorf("%s was caught by %d", c.Vote.Peer.Short(), len(c.Against))
	}
	v.caught = append(v.caught, c)
	for _, index := range c.Voided {
		if a := v.standing[index]; a == nil || a.Checked || a.Peer != c.Vote.Peer {
			return fmt.Errorf("task %d was voided without reason", index)
		}
		v.voided[index] = true
	}
	return nil
}

// runVerified runs a job and checks that every task has one standing result,
// none of it voided.
func runVerified(ctx context.Context, pool *fakePool, job scheduler.Job, cfg scheduler.Config, contents fakeContents) (*verified, scheduler.Summary, error) {
	v := &verified{standing: map[int]*scheduler.Accepted{}, voided: map[int]bool{}, inOrder: !cfg.AsTheyCome}
	cfg.Pool, cfg.Contents, cfg.Caught = pool, contents, v.catch
	sum, err := scheduler.Run(ctx, job, cfg, v.receive)
	if err == nil && (len(v.standing) != job.Count || sum.Ended() != job.Count || len(v.voided) > 0) {
		err = fmt.Errorf("%d tasks stand, %d voided, summary %+v", len(v.standing), len(v.voided), sum)
	}
	if sum.Caught != len(v.caught) {
		err = errors.Join(err, fmt.Errorf("%d caught, summary %+v", len(v.caught), sum))
	}
	return v, sum, err
}

// wrong returns how many standing results are not what an honest worker gives.
func (v *verified) wrong() int {
	n := 0
	for index, a := range v.standing {
		if a.State != tasks.StateDone || string(a.Stdout) != fmt.Sprint(index) {
			n++
		}
	}
	return n
}

func TestQuorumNeverAcceptsWhatOneFalsifies(t *testing.T) {
	for _, asTheyCome := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			pool := &fakePool{}
			for range 3 {
				pool.add(2, slow(10*time.Millisecond))
			}
			liar := pool.add(2, all(slow(10*time.Millisecond), lies(0.1, " wrong", rng)))
			job, contents := newJob(500)
			cfg := scheduler.Config{Verify: twoOfThree, AsTheyCome: asTheyCome, Rand: rng}
			v, sum, err := runVerified(t.Context(), pool, job, cfg, contents)
			if err != nil || v.wrong() > 0 || sum.Checked != 500 {
				t.Fatalf("%d wrong, %+v, %v", v.wrong(), sum, err)
			}
			if len(v.caught) != 1 || v.caught[0].Vote.Peer != liar.peer || liar.lied == 0 {
				t.Errorf("caught %v, the liar lied %d times", v.caught, liar.lied)
			}
			evidence := 0
			for _, a := range v.standing {
				for _, e := range a.Evidence {
					if evidence++; e.Peer != liar.peer || e.Result == a.Digest() {
						t.Errorf("evidence %v", e)
					}
				}
			}
			if evidence == 0 {
				t.Error("no evidence was kept")
			}
			if liar.claims != 1 {
				t.Errorf("the liar was claimed %d times", liar.claims)
			}
		})
	}
}

func TestColludersOnOneSiteCannotPairUp(t *testing.T) {
	for _, verify := range []tasks.Verify{twoOfThree, {Mode: tasks.VerifyQuorum, Need: 2, Of: 2}, adaptive} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			pool := &fakePool{}
			pool.add(1, slow(10*time.Millisecond))
			pool.add(1, slow(10*time.Millisecond))
			for range 2 { // more slots, and they tell the same lie
				pool.add(4, all(slow(10*time.Millisecond), at("den"), lies(1, " same lie", rng)))
			}
			job, contents := newJob(200)
			v, _, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: verify, Rand: rng}, contents)
			if err != nil {
				t.Fatal(err)
			}
			for index, a := range v.standing {
				if a.State == tasks.StateDone && string(a.Stdout) != fmt.Sprint(index) {
					t.Fatalf("%s: %q was accepted for task %d by %v", verify, a.Stdout, index, a.Votes)
				}
				if a.State != tasks.StateDone && verify.Of != 2 {
					t.Fatalf("%s: task %d: %s: %s", verify, index, a.State, a.Why)
				}
			}
		})
	}
}

func TestWithoutAMajorityATaskFailsWithItsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for i := range 3 {
			pool.add(1, func(w *fakeWorker) {
				w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
					return tasks.Result{State: tasks.StateDone, Stdout: fmt.Append(nil, i)}
				}
			})
		}
		job, contents := newJob(3)
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree}, contents)
		if err != nil || sum.Failed != 3 || sum.Caught != 0 {
			t.Fatalf("%+v, %v", sum, err)
		}
		for _, a := range v.standing {
			if !strings.Contains(a.Why, "peers disagree") || len(a.Evidence) != 3 || a.Attempts != 3 {
				t.Errorf("%s, %d votes, %d attempts", a.Why, len(a.Evidence), a.Attempts)
			}
		}
	})
}

func TestImpossibleQuorumIsRefusedBeforeAnythingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		a, b := pool.add(2, at("home")), pool.add(2, at("home"))
		pool.add(2, all(at("away"), func(w *fakeWorker) {
			w.refuse = func() error { return fmt.Errorf("on battery: %w", tasks.ErrRefused) }
		}))
		job, contents := newJob(10)
		for _, verify := range []tasks.Verify{twoOfThree, adaptive} {
			_, _, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: verify}, contents)
			if !errors.Is(err, scheduler.ErrTooFewSites) || !strings.Contains(err.Error(), "on battery") || !strings.Contains(err.Error(), "of 2 sites that give slots, 1 takes this job") {
				t.Errorf("%s: %v", verify, err)
			}
		}
		if a.claims+b.claims+a.started+b.started > 0 {
			t.Error("something ran")
		}
		pool.add(2, all(at("third"), func(w *fakeWorker) { w.refuse = func() error { return tasks.ErrBusy } }))
		if err := scheduler.CheckSites(t.Context(), job, scheduler.Config{Verify: twoOfThree, Pool: pool}); err != nil {
			t.Errorf("a busy site does not count: %v", err)
		}
	})
}

func TestASiteThatComesLaterCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, slow(10*time.Millisecond))
		job, contents := newJob(20)
		time.AfterFunc(time.Minute, func() { pool.add(2, slow(10*time.Millisecond)) })
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree, Started: true}, contents)
		if err != nil || v.wrong() > 0 || sum.Checked != 20 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

func TestTasksThatNoFurtherSiteConfirmsEndAsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, all(at("one"), slow(10*time.Millisecond)))
		pool.add(2, all(at("one"), slow(10*time.Millisecond)))
		job, contents := newJob(20)
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree, Started: true}, contents)
		if err != nil || sum.Lost != 20 {
			t.Fatalf("%+v, %v", sum, err)
		}
		if why := v.standing[3].Why; !strings.Contains(why, "1 of the 2 sites that must agree") {
			t.Error(why)
		}
	})
}

func TestHonestPeersThatMeetALimitAreNoLiars(t *testing.T) {
	for _, verify := range []tasks.Verify{twoOfThree, adaptive} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			pool.add(2, slow(10*time.Millisecond))
			pool.add(2, slow(10*time.Millisecond))
			loaded := pool.add(2, func(w *fakeWorker) {
				w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
					time.Sleep(10 * time.Millisecond)
					if o.Index%5 == 0 {
						return tasks.Result{State: tasks.StateLimit, Limit: tasks.LimitWall, ExitCode: tasks.NoExitCode}
					}
					return tasks.Result{State: tasks.StateDone, Stdout: []byte(o.Spec.Args[0])}
				}
			})
			job, contents := newJob(200)
			v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: verify}, contents)
			if err != nil || v.wrong() > 0 || sum.Caught > 0 || loaded.started == 0 {
				t.Errorf("%s: %d wrong, %+v, %v", verify, v.wrong(), sum, err)
			}
		})
	}
}

func TestAdaptiveChecksEverythingAtFirstAndAFloorLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for range 3 {
			pool.add(2, slow(10*time.Millisecond))
		}
		job, contents := newJob(6000)
		rng := rand.New(rand.NewPCG(5, 6))
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: adaptive, Rand: rng, AsTheyCome: true}, contents)
		if err != nil || v.wrong() > 0 || sum.Caught > 0 {
			t.Fatalf("%+v, %v", sum, err)
		}
		early, late := 0, 0
		for index, a := range v.standing {
			if a.Checked && index < 10 {
				early++
			}
			if a.Checked && index >= 5000 {
				late++
			}
		}
		// Three peers with five of a hundred each, and chance.
		if early != 10 || late < 25 || late > 120 {
			t.Errorf("%d of the first ten are checked, %d of the last thousand", early, late)
		}
	})
}

// findAfter runs an adaptive job with one liar until it is caught, and returns
// how many of its results had been looked at by then.
func findAfter(t *testing.T, share float64, trust int, seed uint64) (results int, found bool) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 7))
		pool := &fakePool{}
		for range 3 {
			pool.add(1, slow(10*time.Millisecond))
		}
		liar := pool.add(1, all(slow(10*time.Millisecond), lies(share, " wrong", rng)))
		job, contents := newJob(40_000)
		stop := errors.New("caught")
		cfg := scheduler.Config{
			Pool: pool, Contents: contents, Verify: adaptive, Rand: rng, AsTheyCome: true,
			Trust:  map[grid.PeerID]int{liar.peer: trust},
			Caught: func(scheduler.Caught) error { found = true; return stop },
		}
		_, err := scheduler.Run(t.Context(), job, cfg, func(*scheduler.Accepted) error { return nil })
		if err != nil && !errors.Is(err, stop) {
			t.Fatal(err)
		}
		synctest.Wait()
		results = liar.started
	})
	return results, found
}

func TestAFalsifierIsFoundWithinTheComputedNumber(t *testing.T) {
	const risk, rounds = 0.01, 40
	for _, c := range []struct {
		share float64
		trust int
	}{{0.1, 0}, {0.1, 1000}, {0.5, 1000}, {0.02, 0}} {
		within := scheduler.DetectWithin(c.share, risk, c.trust)
		late, sum := 0, 0
		for seed := range uint64(rounds) {
			n, found := findAfter(t, c.share, c.trust, seed)
			// A worker is some tasks ahead of the verdicts on its results.
			if !found || n > within+16 {
				late++
			}
			sum += n
		}
		t.Logf("share %g, trust %d: computed %d, on average %d", c.share, c.trust, within, sum/rounds)
		// With a risk of 1 in 100 more than 4 of 40 have a probability below 10⁻⁴.
		if late > 4 {
			t.Errorf("share %g, trust %d: %d of %d were found later than after %d", c.share, c.trust, late, rounds, within)
		}
	}
}

func TestComputedNumberMatchesChance(t *testing.T) {
	for _, c := range []struct{ share, risk float64 }{{0.1, 0.01}, {0.5, 1e-6}, {1, 1e-9}} {
		floor := scheduler.DetectWithin(c.share, c.risk, 1<<20)
		if fresh := scheduler.DetectWithin(c.share, c.risk, 0); fresh > floor {
			t.Errorf("share %g: a new peer is found after %d, a trusted one after %d", c.share, fresh, floor)
		}
		passed := 1.0
		for range floor - 1 {
			passed *= 1 - 0.05*c.share
		}
		if passed < c.risk || passed*(1-0.05*c.share) > c.risk*1.0001 {
			t.Errorf("share %g: %d results pass with %g", c.share, floor, passed)
		}
	}
	if n, bound := scheduler.DetectWithin(0.001, 0.01, 1<<20), scheduler.DetectWithin(0.00099, 0.01, 0); n > bound || bound > n*11/10 {
		t.Errorf("estimate %d is far from %d", bound, n)
	}
}

func TestALieVoidsWhatNobodyChecked(t *testing.T) {
	for _, asTheyCome := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(8, 9))
			pool := &fakePool{}
			for range 3 {
				pool.add(1, slow(10*time.Millisecond))
			}
			liar := pool.add(3, func(w *fakeWorker) {
				rng := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
				w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
					r := takes(10*time.Millisecond)(ctx, o)
					w.mu.Lock()
					defer w.mu.Unlock()
					if w.started > 300 && rng.Float64() < 0.3 { // first it earns trust
						r.Stdout = append(r.Stdout, " wrong"...)
						w.lied++
					}
					return r
				}
			})
			job, contents := newJob(3000)
			v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: adaptive, Rand: rng, AsTheyCome: asTheyCome}, contents)
			if err != nil || v.wrong() > 0 {
				t.Fatalf("%d wrong, %+v, %v", v.wrong(), sum, err)
			}
			if len(v.caught) != 1 || v.caught[0].Vote.Peer != liar.peer || liar.lied < 2 || sum.Voided == 0 || len(v.caught[0].Voided) == 0 {
				t.Errorf("caught %d, %d lies, %+v", len(v.caught), liar.lied, sum)
			}
			for index, a := range v.standing {
				if !a.Checked && a.Peer == liar.peer {
					t.Fatalf("task %d stands on the word of the liar", index)
				}
			}
		})
	}
}

func TestTrustOfAnEarlierRunCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		a, b := pool.add(1, slow(10*time.Millisecond)), pool.add(1, slow(10*time.Millisecond))
		barred := pool.add(1, slow(10*time.Millisecond))
		job, contents := newJob(100)
		cfg := scheduler.Config{
			Verify: adaptive, Rand: rand.New(rand.NewPCG(1, 1)),
			Trust: map[grid.PeerID]int{a.peer: 1000, b.peer: 1000, barred.peer: -1},
		}
		_, sum, err := runVerified(t.Context(), pool, job, cfg, contents)
		if err != nil || sum.Checked > 20 || barred.claims > 0 {
			t.Errorf("%d claims of the one that was caught, %+v, %v", barred.claims, sum, err)
		}
	})
}

func TestUncheckedResultsOfAnEarlierRunAreVoidedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		pool := &fakePool{}
		pool.add(1, slow(10*time.Millisecond))
		pool.add(1, slow(10*time.Millisecond))
		liar := pool.add(1, all(slow(10*time.Millisecond), lies(1, " wrong", rng)))
		job, contents := newJob(60)
		cfg := scheduler.Config{Verify: adaptive, Rand: rng, Started: true}
		cfg.Known = func(_ [32]byte, index int) *scheduler.Accepted {
			if index >= 30 {
				return nil
			}
			return &scheduler.Accepted{Result: tasks.Result{State: tasks.StateDone, Stdout: []byte("wrong"), Peer: liar.peer}}
		}
		v, sum, err := runVerified(t.Context(), pool, job, cfg, contents)
		if err != nil || v.wrong() > 0 || sum.Voided != 30 {
			t.Errorf("%d wrong, %+v, %v", v.wrong(), sum, err)
		}
	})
}

func TestAWrongResultThatComesLateIsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(1, slow(10*time.Millisecond))
		pool.add(1, slow(10*time.Millisecond))
		liar := pool.add(1, func(w *fakeWorker) {
			w.ignoresCancel = true
			w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
				r := takes(20*time.Second)(ctx, o)
				r.Stdout = []byte("wrong")
				return r
			}
		})
		job, contents := newJob(3000)
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree}, contents)
		if err != nil || v.wrong() > 0 {
			t.Fatalf("%+v, %v", sum, err)
		}
		if liar.started == 0 || sum.Caught != 1 {
			t.Errorf("the late liar ran %d tasks, %+v", liar.started, sum)
		}
	})
}

func TestOutputsAreFetchedOnceForAllThatAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		var workers []*fakeWorker
		for range 3 {
			workers = append(workers, pool.add(2, func(w *fakeWorker) {
				w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
					time.Sleep(10 * time.Millisecond)
					return tasks.Result{State: tasks.StateDone, Outputs: []tasks.Output{w.output("file", fmt.Sprint("of ", o.Index))}}
				}
			}))
		}
		job, contents := newJob(40)
		job.Outputs = true
		cfg := scheduler.Config{Pool: pool, Contents: contents, Verify: twoOfThree, Dir: t.TempDir()}
		sum, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
			r, err := a.OpenOutput(a.Outputs[0])
			if err == nil {
				r.Close()
			}
			return err
		})
		fetched, released := 0, 0
		for _, w := range workers {
			fetched += w.opened
			released += w.released
		}
		if err != nil || sum.Checked != 40 || released < 80 {
			t.Errorf("%+v, %d released, %v", sum, released, err)
		}
		if fetched > 80 {
			t.Errorf("%d outputs were fetched", fetched)
		}
	})
}
