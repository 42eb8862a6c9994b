package taskrpc

import (
	"context"
	"io"

	"gotong/tasks"
)

// Runner runs tasks on this machine. Methods are safe for concurrent use.
type Runner interface {
	// Slots returns how many tasks run at once for others; when it is 0, the
	// reason in words.
	Slots() (n int, why string)
	// Check returns why tasks like this are not run here, without arguments:
	// an error that wraps tasks.ErrRefused, tasks.ErrSandbox or
	// tasks.ErrStopped; nil when they are.
	Check(spec tasks.Spec) error
	// Do runs a task to its end. When ctx is cancelled the guest is stopped at
	// once and the state is tasks.StateCancelled. More tasks than slots may be
	// handed over; they wait. An error means that the task was not run:
	// tasks.ErrNoContent, tasks.ErrBusy and the like.
	Do(ctx context.Context, task tasks.Task) (tasks.Result, error)
	// Missing returns those of ids that are not in the content store.
	Missing(ids []tasks.ContentID) []tasks.ContentID
	// PutContent stores what r gives once its hash and size were found right.
	// Errors: tasks.ErrContent, tasks.ErrStoreFull.
	PutContent(ctx context.Context, id tasks.ContentID, size int64, r io.Reader) error
	// OpenContent opens a stored content, an output for instance. The caller
	// closes.
	OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error)
	// Release says that the outputs of a task that Do ran are no longer needed.
	// It is called once for each result that has outputs which are not inline.
	Release(task tasks.TaskID)
}
