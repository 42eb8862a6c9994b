package worker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// Bounds of a box.
const (
	// keepStaged is how many inputs stay staged when no task needs them.
	keepStaged = 64
	// maxFaults bounds the modules that are remembered as unable to run.
	maxFaults = 64
)

// box is a sandbox process with its staging directory.
type box struct {
	key   key
	guest guest
	dir   string
	store *Store
	group sync.WaitGroup // outputs being collected

	mu     sync.Mutex
	staged map[tasks.ContentID]int // inputs in the directory, with how many tasks need them
}

// openBox makes s.box a live sandbox for k.
func (s *slot) openBox(ctx context.Context, launcher *sandbox.Launcher, k key) error {
	if s.box != nil {
		select {
		case <-s.box.guest.Ended():
		default:
			if s.box.key == k {
				return nil
			}
		}
		s.closeBox()
	}
	return s.startBox(ctx, launcher, k)
}

func (s *slot) startBox(ctx context.Context, launcher *sandbox.Launcher, k key) error {
	w := s.worker
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.mu.Lock()
	fault, barred := w.faults[k], !s.withheld.IsZero()
	s.starting = func() { cancel(errBarred) }
	w.mu.Unlock()
	switch {
	case fault != nil:
		return fault
	case barred:
		return errBarred
	}
	begin := time.Now()
	s.boxes++
	dir := filepath.Join(w.cfg.Dir, slotsDir, fmt.Sprintf("%d-%d", s.number, s.boxes))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	g, err := w.startGuest(ctx, launcher, k, dir)
	if err != nil {
		os.RemoveAll(dir)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	s.box = &box{key: k, guest: g, dir: dir, store: w.store, staged: make(map[tasks.ContentID]int)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.SandboxesStarted++
	s.since = time.Now()
	s.cost = s.since.Sub(begin)
	s.entered(g)
	return nil
}

// closeBox ends the slot's sandbox, if any, and removes its directory.
func (s *slot) closeBox() {
	if s.box == nil {
		return
	}
	s.worker.mu.Lock()
	s.guest = nil
	s.worker.mu.Unlock()
	s.box.guest.Stop()
	s.box.group.Wait() // what its tasks left is taken over first
	s.box.guest.Close()
	if err := os.RemoveAll(s.box.dir); err != nil {
		s.worker.cfg.Logger.Warn("staging directory is left", "err", err)
	}
	s.box = nil
}

// rememberFault spares other tasks of the same job the start of a sandbox.
func (w *Worker) rememberFault(k key, fault *sandbox.ModuleError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) >= maxFaults {
		clear(w.faults)
	}
	w.faults[k] = fault
}

// stage makes the inputs of a task appear where the sandbox reads them.
func (b *box) stage(inputs []tasks.ContentID) error {
	if len(inputs) == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trim(len(inputs))
	for i, id := range inputs {
		if _, there := b.staged[id]; !there {
			if err := b.store.stageAt(id, b.guest.InputPath(id)); err != nil {
				b.releaseLocked(inputs[:i])
				return fmt.Errorf("stage input %s: %w", id.Short(), err)
			}
		}
		b.staged[id]++
	}
	return nil
}

// unstage says that a task no longer needs its inputs. They stay for the next.
func (b *box) unstage(inputs []tasks.ContentID) {
	if len(inputs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releaseLocked(inputs)
}

func (b *box) releaseLocked(inputs []tasks.ContentID) {
	for _, id := range inputs {
		b.staged[id]--
	}
}

// trim removes inputs that no task needs, when there are many; b.mu is held.
func (b *box) trim(coming int) {
	if len(b.staged)+coming <= keepStaged {
		return
	}
	maps.DeleteFunc(b.staged, func(id tasks.ContentID, needed int) bool {
		return needed == 0 && os.Remove(b.guest.InputPath(id)) == nil
	})
}

// collect turns an outcome into the task's result. Outputs that are on disk are
// taken by a goroutine of their own; there are never more than sandbox.Window of
// those.
func (b *box) collect(ctx context.Context, w *Worker, e *job, o sandbox.Outcome) {
	if len(o.Spilled()) > 0 {
		b.group.Go(func() { w.finish(e, b.result(ctx, w, e, o)) })
		return
	}
	w.finish(e, b.result(ctx, w, e, o))
}

func (b *box) result(ctx context.Context, w *Worker, e *job, o sandbox.Outcome) tasks.Result {
	r := tasks.Result{
		State: o.State, Limit: o.Limit, ExitCode: o.ExitCode, Why: o.Why,
		Stdout: o.Stdout, Stderr: o.Stderr, Elapsed: o.Elapsed, Engine: b.guest.Engine(),
	}
	if len(o.Files) == 0 && !o.LargeStdout.Spilled() {
		return r
	}
	if err := b.takeOutputs(ctx, w, e.task.ID, o, &r); err != nil {
		w.cfg.Logger.Warn("outputs of a task are lost", "task", e.task.ID.Short(), "err", err)
		return lost(cut("its outputs could not be kept: " + err.Error()))
	}
	return r
}

// takeOutputs hashes the files of an outcome for its result; those on disk move to the
// store, where they are held.
func (b *box) takeOutputs(ctx context.Context, w *Worker, id tasks.TaskID, o sandbox.Outcome, r *tasks.Result) (err error) {
	defer b.dropOutputs(o)
	var held []tasks.ContentID
	defer func() {
		if err != nil {
			w.store.unpin(held)
		}
	}()
	take := func(f sandbox.File) (tasks.Output, error) {
		out := tasks.Output{Name: f.Name, Size: f.Size, Data: f.Data}
		if !f.Spilled() {
			out.Content = blake3.Sum256(f.Data)
			return out, nil
		}
		var err error
		if out.Content, err = b.takeSpilled(ctx, f); err == nil {
			held = append(held, out.Content)
		}
		return out, err
	}
	if o.LargeStdout.Spilled() {
		out, err := take(o.LargeStdout)
		if err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		r.LargeStdout = &out
	}
	for _, f := range o.Files {
		out, err := take(f)
		if err != nil {
			return err
		}
		r.Outputs = append(r.Outputs, out)
	}
	if len(held) > 0 && !w.holdOutputs(id, held) {
		return fmt.Errorf("%w: outputs of %d tasks wait to be fetched", tasks.ErrStoreFull, maxHeld)
	}
	return nil
}

// dropOutputs removes the files of an outcome that nobody wants.
func (b *box) dropOutputs(o sandbox.Outcome) {
	for _, f := range o.Spilled() {
		b.guest.DropOutput(f)
	}
}

// takeSpilled copies a file from the sandbox's directory into the store, pinned.
func (b *box) takeSpilled(ctx context.Context, f sandbox.File) (tasks.ContentID, error) {
	source, err := b.guest.OpenOutput(f)
	if err != nil {
		return tasks.ContentID{}, err
	}
	defer source.Close()
	return b.store.add(ctx, f.Size, source, func(tasks.ContentID) error { return nil }, 1)
}

// cut shortens a reason to what a result may carry.
func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), tasks.MaxWhyBytes)], "")
}
