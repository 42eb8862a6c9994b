package keeper

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// seeds is how many worlds the simulation tries: more with KEEPER_SEEDS.
func seeds() int {
	if n, err := strconv.Atoi(os.Getenv("KEEPER_SEEDS")); err == nil {
		return n
	}
	return 60
}

// TestSurvives: whatever is killed, cut and lost for a while, every task is in
// the journal in the end, what was acknowledged as accepted stays, the job ends,
// and its keepers agree.
func TestSurvives(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { survive(t, uint64(seed)) })
		})
	}
}

func survive(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 0, 1, 2, 3, 4, 5, 6)
	defer w.stop()
	w.start()
	w.loss = []float64{0, 0.02, 0.15}[w.pick(3)]
	submitter := w.nodes[0]
	job := submitter.submit(nil)
	if w.pick(2) == 0 {
		submitter.kill()
		submitter.disk = newMemDisk()
	}
	for range 10 + w.pick(30) {
		time.Sleep(time.Duration(w.pick(3000)) * time.Millisecond)
		w.harm(submitter)
	}
	w.mu.Lock()
	w.loss = 0
	clear(w.cut)
	w.mu.Unlock()
	for _, m := range w.nodes[1:] {
		m.start()
	}
	w.wait("every keeper has the end", 3*time.Minute, func() bool { return w.agreed(job) })
	w.check(t, job)
}

// harm does one harm, or repairs one.
func (w *world) harm(submitter *machine) {
	m := w.nodes[1+w.pick(len(w.nodes)-1)]
	switch w.pick(6) {
	case 0, 1:
		m.kill()
	case 2, 3:
		m.start()
	case 4: // cut off from some, in one or both directions
		for _, other := range w.nodes {
			if other != m && w.pick(2) == 0 {
				w.cutOff(m, other, true)
			}
		}
	case 5:
		w.mu.Lock()
		clear(w.cut)
		w.mu.Unlock()
	}
}

func (w *world) cutOff(a, b *machine, cut bool) {
	both := w.pick(2) == 0
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]grid.PeerID{a.id, b.id}] = cut
	if both {
		w.cut[[2]grid.PeerID{b.id, a.id}] = cut
	}
}

// agreed reports whether the job has ended and at least Copies disks have all of
// it.
func (w *world) agreed(job tasks.JobID) bool {
	full, most := 0, 0
	for _, m := range w.nodes {
		k := m.up()
		if k == nil {
			continue
		}
		j := k.job(job)
		if j == nil {
			continue
		}
		j.mu.Lock()
		n, over := int(j.have.Records()), j.over() && j.driving == nil
		j.mu.Unlock()
		switch {
		case !over:
			return false
		case n > most:
			full, most = 1, n
		case n == most:
			full++
		}
	}
	return full >= Copies
}

func (w *world) check(t *testing.T, job tasks.JobID) {
	t.Helper()
	for m, j := range w.copiesOf(job) {
		if m.up() == nil {
			continue
		}
		f := fold(t, j)
		for task := range w.tasks {
			if _, ok := f.results[task]; !ok {
				t.Errorf("%s: task %d is not in the journal", m.name, task)
			}
		}
		if len(f.results) != w.tasks {
			t.Errorf("%s: %d results", m.name, len(f.results))
		}
		for task := range w.acked {
			if _, ok := f.results[task]; !ok {
				t.Errorf("%s: task %d was accepted, and is gone", m.name, task)
			}
		}
	}
}
