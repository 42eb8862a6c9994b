package scheduler

import (
	"context"
	"io"

	"gotong/grid"
	"gotong/tasks"
)

// Header is what the tasks of a job have in common.
type Header struct {
	Job    tasks.JobID
	Module tasks.ContentID
	Inputs []tasks.Input
	Limits tasks.Limits
}

// Contents returns the module and the inputs, each once.
func (h Header) Contents() []tasks.ContentID { return h.Spec(nil).Contents() }

// Spec returns what a task with these arguments runs. It shares h.Inputs.
func (h Header) Spec(args []string) tasks.Spec {
	return tasks.Spec{Module: h.Module, Args: args, Inputs: h.Inputs, Limits: h.Limits}
}

// Pool knows the peers that may work. Its methods are safe for concurrent use.
type Pool interface {
	// Candidates returns the live peers that give slots, this one included if
	// it does. It is cheap and blocks on nothing.
	Candidates() []Candidate
	// Worker returns the worker of a candidate; it need not reach it yet.
	Worker(peer grid.PeerID) (Worker, error)
}

// Candidate is a peer that may have a free slot.
type Candidate struct {
	Peer grid.PeerID
	Site string // failure domain
}

// Offer is what a worker says before it is claimed.
type Offer struct {
	Slots   int               // given in all
	Free    int               // unused now
	Missing []tasks.ContentID // of the job's contents
}

// Worker is a peer that runs tasks, local or remote. Methods are safe for
// concurrent use and return soon after their context is cancelled. Errors wrap
// tasks.ErrBusy (try later), tasks.ErrRefused (its rules say no) or another
// cause, with the worker's reason in the text.
type Worker interface {
	// Offer asks whether the worker would take tasks of the job. It reserves
	// nothing.
	Offer(ctx context.Context, h Header) (Offer, error)
	// PutContent hands over one content; nil means that the worker verified
	// and has it.
	PutContent(ctx context.Context, id tasks.ContentID, size int64, r io.Reader) error
	// Claim takes slots for the job until ctx is cancelled.
	Claim(ctx context.Context, h Header) (Session, error)
	// OpenOutput reads an output of a task of a claim that is still open. The
	// bytes are not verified yet. The caller closes.
	OpenOutput(ctx context.Context, task tasks.TaskID, content tasks.ContentID) (io.ReadCloser, error)
}

// Session is one claim. It ends with the context that Claim was given, after
// which Send and Recv return an error; tasks that it still holds are stopped.
type Session interface {
	// Slots returns how many tasks run at once.
	Slots() int
	// Send passes orders on; one goroutine at a time. It may keep the slices.
	// When the session has ended Send may return nil; Recv says why it ended.
	Send(Orders) error
	// Recv waits for the next report; one goroutine at a time. Results are
	// verified: signed by the worker, valid, of the job and of the spec that
	// was sent under their index.
	Recv() (Report, error)
}

// Order is one task to run.
type Order struct {
	Index int
	Spec  tasks.Spec
}

// Orders travel to the worker together. Empty orders are a sign of life.
type Orders struct {
	Tasks   []Order // run in this order
	Cancel  []int   // results no longer wanted; the worker still reports them, as cancelled
	Release []int   // outputs no longer needed
}

// Empty reports whether o says nothing.
func (o Orders) Empty() bool { return len(o.Tasks)+len(o.Cancel)+len(o.Release) == 0 }

// Report comes back from a worker. An empty one is a sign of life.
type Report struct {
	Results  []SignedResult
	Returned []Returned
	Closing  string // not empty: takes no more tasks, and why
}

// SignedResult is a result with the worker's word for it.
type SignedResult struct {
	tasks.Result
	Proof Proof
}

// Returned is a task that the worker gives back without having run it to an
// end.
type Returned struct {
	Index int
	Why   string
}

// Refusal says why a peer took no tasks.
type Refusal struct {
	Peer grid.PeerID
	Why  string
}
