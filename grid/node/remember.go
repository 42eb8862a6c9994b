package node

import (
	"path/filepath"
	"sync"

	"gotong/tasks"
	"gotong/tasks/remember"
	"gotong/tasks/sandbox"
	"gotong/tasks/scheduler"
)

// openMemory opens the memory of results, unless none is to be kept. It is a
// cache: one that cannot be opened is done without.
func (p *Peer) openMemory(dir string) *remember.Memory {
	if p.cfg().Tasks.RememberBytes == 0 {
		return nil
	}
	m, err := remember.Open(remember.Config{
		Dir: filepath.Join(dir, "results"), MaxBytes: int64(p.cfg().Tasks.RememberBytes), Logger: p.logger,
	})
	if err != nil {
		p.logger.Warn("results of tasks are not remembered", "err", err)
	}
	return m
}

// remembering is a run whose results are remembered.
type remembering struct {
	memory *remember.Memory
	job    remember.Job
	fresh  bool                                               // nothing that is remembered is taken
	before func(spec [32]byte, index int) *scheduler.Accepted // asked first; nil: nobody
	known  func(spec [32]byte, index int) *scheduler.Accepted

	mu    sync.Mutex
	specs map[int][32]byte // tasks.Spec.ID of tasks that may be kept or forgotten
}

// remember makes a run take the results of this owner that are remembered,
// unless it is to be fresh, and has its own remembered.
func (p *Peer) remember(job scheduler.Job, cfg scheduler.Config, fresh bool, receive func(*scheduler.Accepted) error) (scheduler.Config, func(*scheduler.Accepted) error) {
	if p.work.memory == nil || job.Runtime == tasks.RuntimeNative {
		return cfg, receive
	}
	r := &remembering{
		memory: p.work.memory, fresh: fresh, specs: map[int][32]byte{},
		job: p.remembers(cfg.Verify), before: cfg.Known,
	}
	r.known = r.memory.Known(r.job)
	cfg.Known = r.lookUp
	caught := cfg.Caught
	cfg.Caught = func(c scheduler.Caught) error {
		r.forget(c.Voided)
		if caught == nil {
			return nil
		}
		return caught(c)
	}
	return cfg, func(a *scheduler.Accepted) error {
		if err := receive(a); err != nil {
			return err
		}
		r.take(a)
		return nil
	}
}

// remembers names what this peer remembers for its owner of jobs with such a
// verification.
func (p *Peer) remembers(v tasks.Verify) remember.Job {
	return remember.Job{Owner: p.owner(), Engine: sandbox.Engine, Verify: v}
}

// lookUp is the run's scheduler.Config.Known.
func (r *remembering) lookUp(spec [32]byte, index int) *scheduler.Accepted {
	if r.before != nil {
		if a := r.before(spec, index); a != nil {
			return a
		}
	}
	if !r.fresh {
		if a := r.known(spec, index); a != nil {
			return a
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.specs[index] = spec
	return nil
}

// take has a result remembered that was received.
func (r *remembering) take(a *scheduler.Accepted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	spec, ok := r.specs[a.Task.Index]
	if !ok {
		return
	}
	r.memory.Keep(r.job, spec, a)
	if a.Checked || r.job.Verify.Mode != tasks.VerifyAdaptive {
		delete(r.specs, a.Task.Index) // it will not be voided
	}
}

// forget has results forgotten that were received and proved to be of a liar.
func (r *remembering) forget(indexes []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, index := range indexes {
		if spec, ok := r.specs[index]; ok {
			r.memory.Forget(r.job, spec)
		}
	}
}
