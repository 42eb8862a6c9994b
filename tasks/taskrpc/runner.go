package taskrpc

import (
	"context"
	"io"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// Asker is for whom a task runs: the worker authorises the owner, by the grant
// of the job. Whoever asks may be any member, such as a keeper.
type Asker struct {
	Peer  grid.PeerID // who asks, from the connection
	Owner grid.OwnerID
	Job   tasks.JobID
}

// Job is what a runner is told of the job of a task. Its Grant was verified.
type Job struct {
	Asker
	Key          tasks.Key
	Grant        []byte
	Expires      time.Time // of the grant
	StoreOutputs bool      // outputs that are not inline are to be stored
	StoreStdout  bool      // a standard output that is not inline is to be stored
}

// Work is one task with what it takes to run it.
type Work struct {
	Job    Job
	Task   tasks.Task
	Stored []map[tasks.ContentID]tasks.Stored // where contents are that are not here
	// Fetching is called while contents for the task arrive; it returns quickly.
	Fetching func()
}

// StoredAt returns where a content is stored.
func (w Work) StoredAt(id tasks.ContentID) (tasks.Stored, bool) {
	for _, m := range w.Stored {
		if s, ok := m[id]; ok {
			return s, true
		}
	}
	return tasks.Stored{}, false
}

// Runner runs tasks on this machine. Methods are safe for concurrent use.
type Runner interface {
	// Slots returns how many tasks run at once for others; when it is 0, the
	// reason in words.
	Slots() (n int, why string)
	// Check returns why tasks like this are not run here, without arguments but
	// for the command that all of them have: an error that wraps
	// tasks.ErrRefused, tasks.ErrUnfit, tasks.ErrSandbox or tasks.ErrStopped; nil
	// when they are.
	Check(asker Asker, spec tasks.Spec) error
	// Engine names what runs tasks of a runtime here, as tasks.Result.Engine does.
	Engine(tasks.Runtime) string
	// Do runs a task to its end. When ctx is cancelled the guest is stopped at
	// once and the state is tasks.StateCancelled. More tasks than slots may be
	// handed over; they wait. Contents that are not here and are stored are
	// fetched first, which counts in no limit of the task. An error means that
	// the task was not run: tasks.ErrNoContent, tasks.ErrBusy, tasks.ErrUnfit
	// and the like.
	Do(ctx context.Context, work Work) (tasks.Result, error)
	// Missing returns those of ids that are not in the content store.
	Missing(ids []tasks.ContentID) []tasks.ContentID
	// PutContent stores what r gives once its hash and size were found right.
	// Errors: tasks.ErrContent, tasks.ErrStoreFull.
	PutContent(ctx context.Context, asker Asker, id tasks.ContentID, size int64, r io.Reader) error
	// OpenContent opens a stored content, an output for instance. The caller
	// closes.
	OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error)
	// Release says that the outputs of a task that Do ran are no longer needed.
	// It is called once for each result that has outputs which are neither inline
	// nor stored.
	Release(task tasks.TaskID)
}
