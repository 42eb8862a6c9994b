package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// verifyPlan is a random grid in which some lie, over a random verification.
type verifyPlan struct {
	plan
	verify tasks.Verify
	sites  []int // of each worker; liars have the highest numbers, so sites of their own
	lie    []liePlan
	known  int // tasks that are known from an earlier run, of worker 0
}

type liePlan struct {
	share float64
	same  bool // the lie is that of all others that have this set
}

func drawVerifyPlan(t *rapid.T) verifyPlan {
	p := verifyPlan{plan: drawPlan(t)}
	p.poison = -1
	p.verify = rapid.SampledFrom([]tasks.Verify{
		adaptive, twoOfThree, {Mode: tasks.VerifyQuorum, Need: 2, Of: 2}, {Mode: tasks.VerifyQuorum, Need: 3, Of: 5},
	}).Draw(t, "verify")
	p.known = rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "known")
	for range p.workers {
		p.sites = append(p.sites, rapid.IntRange(0, 3).Draw(t, "site"))
	}
	for range rapid.IntRange(0, 3).Draw(t, "liars") {
		p.workers = append(p.workers, workerPlan{slots: rapid.IntRange(1, 3).Draw(t, "slots"), takes: time.Duration(rapid.SampledFrom([]int{0, 1, 30, 2000}).Draw(t, "ms")) * time.Millisecond})
		p.lie = append(p.lie, liePlan{rapid.SampledFrom([]float64{0.1, 0.5, 1}).Draw(t, "share"), rapid.Bool().Draw(t, "same")})
		p.sites = append(p.sites, rapid.IntRange(4, 5).Draw(t, "site"))
	}
	return p
}

func (p verifyPlan) build(e *execution) *fakePool {
	pool := p.plan.build(e)
	honest := len(p.workers) - len(p.lie)
	for i, w := range pool.workers {
		w.site = fmt.Sprint("site", p.sites[i])
		if i >= honest {
			lie := p.lie[i-honest]
			text := fmt.Sprint(" lie of ", i)
			if lie.same {
				text = " the same lie"
			}
			lies(lie.share, text, rand.New(rand.NewPCG(p.seed, uint64(i))))(w)
		}
	}
	return pool
}

// conspire reports whether liars on two sites may tell the same lie: then they
// are a quorum of two like any other.
func (p verifyPlan) conspire() bool {
	sites := map[int]bool{}
	for i, l := range p.lie {
		if l.same {
			sites[p.sites[len(p.workers)-len(p.lie)+i]] = true
		}
	}
	return len(sites) > 1
}

func (p verifyPlan) check(t *testing.T) (err error) {
	synctest.Test(t, func(t *testing.T) {
		e := &execution{copies: map[int]int{}}
		pool := p.build(e)
		job, contents := newJob(p.count)
		cfg := scheduler.Config{
			Window: p.window, AsTheyCome: p.asTheyCome, Verify: p.verify, Started: true,
			Rand: rand.New(rand.NewPCG(p.seed, 0)),
		}
		if p.known > 0 && !p.conspire() { // they may have the peer caught that gave what is known
			cfg.Known = func(_ [32]byte, index int) *scheduler.Accepted {
				if index%p.known != 0 {
					return nil
				}
				return &scheduler.Accepted{Result: tasks.Result{State: tasks.StateDone, Stdout: fmt.Append(nil, index), Peer: pool.workers[0].peer}}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		v, sum, failed := runVerified(ctx, pool, job, cfg, contents)
		synctest.Wait()
		err = errors.Join(failed, p.judge(pool, v, sum))
	})
	return err
}

func (p verifyPlan) judge(pool *fakePool, v *verified, sum scheduler.Summary) error {
	for _, w := range pool.workers {
		if w.most > w.slots || w.running != 0 {
			return fmt.Errorf("%s ran %d at once on %d slots, %d still run", w.site, w.most, w.slots, w.running)
		}
	}
	liars := map[string]bool{}
	for _, w := range pool.workers[len(p.workers)-len(p.lie):] {
		liars[w.peer.String()] = true
	}
	if p.conspire() {
		return nil
	}
	for _, c := range v.caught {
		if !liars[c.Vote.Peer.String()] {
			return fmt.Errorf("an honest peer was caught: %v", c)
		}
	}
	for index, a := range v.standing {
		if a.State == tasks.StateDone && string(a.Stdout) != fmt.Sprint(index) && (a.Checked || p.verify.Mode == tasks.VerifyQuorum) {
			return fmt.Errorf("task %d: %q was accepted by %v", index, a.Stdout, a.Votes)
		}
		if p.verify.Mode == tasks.VerifyQuorum && a.State == tasks.StateDone && len(a.Votes) < p.verify.Need && (p.known == 0 || index%p.known != 0) {
			return fmt.Errorf("task %d was accepted by %d", index, len(a.Votes))
		}
		if a.State == tasks.StateFailed && len(liars) == 0 {
			return fmt.Errorf("task %d failed: %s", index, a.Why)
		}
	}
	return nil
}

func TestResultsAreDeliveredOnceAndRightWhoeverLies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawVerifyPlan(rt)
		if err := p.check(t); err != nil {
			rt.Fatalf("%+v: %v", p, err)
		}
	})
}
