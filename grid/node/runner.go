package node

import (
	"context"
	"fmt"
	"io"

	"gotong/tasks"
	"gotong/tasks/native"
	"gotong/tasks/sandbox"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// runner is the worker as the task service sees it, with what the donor allows.
// It implements taskrpc.Runner.
type runner struct {
	work   *work
	worker *worker.Worker
	limits tasks.Limits // the most that a task may ask for
	stored jobContents
}

// Slots returns how many tasks run at once now; when none, why.
func (r runner) Slots() (n int, why string) {
	n, why = r.work.donor.slots()
	if n == 0 {
		return 0, why
	}
	if err := r.worker.Ready(); err != nil {
		return 0, err.Error()
	}
	return n, why
}

// Check returns why tasks like this are not run here.
func (r runner) Check(asker taskrpc.Asker, spec tasks.Spec) error {
	if err := r.work.peer.admit(asker.Owner); err != nil {
		return err
	}
	if err := r.ready(asker, spec); err != nil {
		return err
	}
	switch budget := r.work.donor.budget(); {
	case spec.Limits.MemoryBytes > r.limits.MemoryBytes:
		return fmt.Errorf("%w: its donor allows tasks %s of memory", tasks.ErrUnfit, Size(r.limits.MemoryBytes))
	case spec.Limits.Wall > r.limits.Wall:
		return fmt.Errorf("%w: its donor allows tasks %s of time", tasks.ErrUnfit, r.limits.Wall)
	case spec.Limits.MemoryBytes > budget:
		return fmt.Errorf("%w: its donor allows tasks %s of memory now", tasks.ErrRefused, Size(budget))
	}
	return nil
}

// ready returns why this machine cannot run tasks like this for their owner.
func (r runner) ready(asker taskrpc.Asker, spec tasks.Spec) error {
	if !spec.Native() {
		return r.worker.Ready()
	}
	if err := r.work.peer.admitNative(asker.Owner); err != nil {
		return err
	}
	if err := r.worker.ReadyNative(); err != nil || len(spec.Args) == 0 {
		return err
	}
	return native.Find(spec.Args[0])
}

// Engine names what runs tasks of a runtime.
func (r runner) Engine(runtime tasks.Runtime) string {
	if runtime == tasks.RuntimeNative {
		return native.Engine()
	}
	return sandbox.Engine
}

// Do runs a task to its end.
func (r runner) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	result, err := r.stored.with(ctx, work, func() (tasks.Result, error) { return r.worker.Do(ctx, work.Task) })
	if err != nil {
		return result, err
	}
	r.work.accounts.gave(work.Job.Owner, result.Elapsed)
	if r.stored.keep(ctx, work, &result) {
		r.worker.Release(work.Task.ID)
	}
	return result, nil
}

// Missing returns those contents that are not here.
func (r runner) Missing(ids []tasks.ContentID) []tasks.ContentID {
	return r.worker.Store().Missing(ids)
}

// PutContent stores a content.
func (r runner) PutContent(ctx context.Context, asker taskrpc.Asker, id tasks.ContentID, size int64, from io.Reader) error {
	if n, why := r.work.donor.slots(); n == 0 {
		return fmt.Errorf("%w: %s", tasks.ErrRefused, why)
	}
	if err := r.work.peer.admit(asker.Owner); err != nil {
		return err
	}
	return r.worker.Store().Put(ctx, id, size, from)
}

// OpenContent opens a stored content. The caller closes.
func (r runner) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	f, size, err := r.worker.Store().Open(id)
	if err != nil {
		return nil, 0, err // not a nil *os.File in an interface
	}
	return f, size, nil
}

// Release lets go of the outputs of a task.
func (r runner) Release(id tasks.TaskID) { r.worker.Release(id) }
