package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"gotong/grid"
	"gotong/tasks"
)

// What may take how much of a message, by Part.bytes: with orderBytes of other tasks,
// and all else, it stays below 4 MiB.
const (
	maxHeaderBytes = 3<<20 + 512<<10
	maxPartBytes   = 2<<20 + 512<<10
)

// Header is what the tasks of a job have in common.
type Header struct {
	Job     tasks.JobID
	Runtime tasks.Runtime
	Module  tasks.ContentID
	Inputs  []tasks.Input
	Limits  tasks.Limits
	// Command is the first argument of every task of a tasks.RuntimeNative, so
	// that a peer that lacks it says so before it gets any; empty: they differ.
	Command string

	Grant []byte    // see storage.JobGrant; workers take no job without
	Key   tasks.Key // of the job, when something of it is stored
	// Stored is where contents of the job are stored: the worker fetches these
	// itself. The others are handed to it.
	Stored map[tasks.ContentID]tasks.Stored
	// StoreOutputs asks the worker to store outputs that are too large to ride
	// inline, under the grant, rather than to keep them until they are fetched.
	StoreOutputs bool
	// StoreStdout asks for the same of a standard output that is too large.
	StoreStdout bool
	// Step tells arrays of tasks apart that one caller runs at once under one job
	// id: each has claims of its own. Their indices must differ.
	Step int
	// Priority orders the jobs of one owner at a worker: tasks of the higher one
	// begin first.
	Priority int
	// Outlive asks the worker to let tasks go on for a while when the caller falls
	// silent, and to keep their results: another caller may come for them. See
	// Session.Left.
	Outlive bool
}

// Contents returns the module and the inputs that all tasks have, each once.
func (h Header) Contents() []tasks.ContentID { return h.Spec(Part{}).Contents() }

// Spec returns what a task with this part of its own runs. It shares the slices
// of both where it can.
func (h Header) Spec(p Part) tasks.Spec {
	inputs := h.Inputs
	switch {
	case len(inputs) == 0:
		inputs = p.Inputs
	case len(p.Inputs) > 0:
		inputs = slices.Concat(inputs, p.Inputs)
	}
	return tasks.Spec{
		Runtime: h.Runtime, Module: h.Module, Args: p.Args, Inputs: inputs,
		Stdin: p.Stdin, StdinSize: p.StdinSize, Limits: h.Limits,
	}
}

// Validate reports what is wrong with every task of the job, wrapping
// tasks.ErrInvalid.
func (h Header) Validate() error {
	if h.Job.IsZero() {
		return fmt.Errorf("%w: no job id", tasks.ErrInvalid)
	}
	if n := (Part{Inputs: h.Inputs, Stored: h.Stored}).bytes(); n > maxHeaderBytes {
		return fmt.Errorf("%w: the inputs of all tasks take %d bytes of a message, more than %d: give them shorter names, or take fewer", tasks.ErrInvalid, n, maxHeaderBytes)
	}
	var p Part
	switch {
	case h.Command != "" && h.Runtime != tasks.RuntimeNative:
		return fmt.Errorf("%w: a module with a command", tasks.ErrInvalid)
	case h.Runtime == tasks.RuntimeNative:
		p.Args = []string{cmp.Or(h.Command, "the program, which each task names")}
	}
	return h.Spec(p).Validate()
}

// Check reports what is wrong with a task of a job whose header is valid,
// wrapping tasks.ErrInvalid, or the part's own error.
func (h Header) Check(p Part) error {
	if p.Err != nil {
		return p.Err
	}
	if n := p.bytes(); n > maxPartBytes {
		return fmt.Errorf("%w: the inputs of a task take %d bytes of a message, more than %d: give them shorter names, or take fewer", tasks.ErrInvalid, n, maxPartBytes)
	}
	if len(p.Inputs) == 0 {
		h.Inputs = nil // checked once, with the header
	}
	return h.Spec(p).Validate()
}

// Part is what one task has of its own.
type Part struct {
	Args      []string
	Inputs    []tasks.Input // beside those of the header
	Stdin     tasks.ContentID
	StdinSize int64
	// Stored is where contents of the task are stored, beyond Header.Stored.
	Stored map[tasks.ContentID]tasks.Stored
	// Near are peers that are likely to have what of it is stored: they made it.
	Near []grid.PeerID
	// Err says why there can be no such task: it ends as failed.
	Err error
}

// contents returns what only the tasks that name it need and no worker can
// fetch.
func (p Part) contents() []tasks.ContentID {
	if len(p.Inputs) == 0 && p.Stdin.IsZero() {
		return nil // most often
	}
	return slices.DeleteFunc(tasks.Spec{Inputs: p.Inputs, Stdin: p.Stdin}.Contents(), p.stored)
}

func (p Part) stored(id tasks.ContentID) bool {
	_, ok := p.Stored[id]
	return ok
}

// contentBytes returns the size of contents.
func (p Part) contentBytes() int64 {
	n := int64(0)
	if !p.stored(p.Stdin) {
		n = p.StdinSize
	}
	for _, in := range p.Inputs {
		if !p.stored(in.Content) {
			n += in.Size
		}
	}
	return n
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
	Engine  string            // what would run the tasks: tasks.Result.Engine; empty: it does not say
	Left    int               // tasks of the job that run there, or ran, for another caller
}

// Worker is a peer that runs tasks, local or remote. Methods are safe for
// concurrent use and return soon after their context is cancelled. Errors wrap
// tasks.ErrBusy (try later), tasks.ErrRefused (its rules say no), tasks.ErrUnfit
// (they will not say otherwise, or it lacks something) or another cause, with the worker's reason in the text.
type Worker interface {
	// Offer asks whether the worker would take tasks of the job. It reserves
	// nothing.
	Offer(ctx context.Context, h Header) (Offer, error)
	// PutContent hands over one content of the job; nil means that the worker
	// verified and has it.
	PutContent(ctx context.Context, h Header, id tasks.ContentID, size int64, r io.Reader) error
	// Claim takes slots for the job until ctx is cancelled.
	Claim(ctx context.Context, h Header) (Session, error)
	// OpenOutput reads an output of a task of a claim that is still open. The
	// bytes are not verified yet. The caller closes.
	OpenOutput(ctx context.Context, task tasks.TaskID, content tasks.ContentID) (io.ReadCloser, error)
}

// Session is one claim. It ends with the context that Claim was given, after
// which Send and Recv return an error; tasks that it still holds are stopped,
// but go on under Header.Outlive when Done was not called.
type Session interface {
	// Slots returns how many tasks run at once.
	Slots() int
	// Left returns tasks that the worker runs, or ran, for a caller who fell
	// silent, at most MaxLeft. Ordered, they are not begun anew. To cancel them
	// ends them, and nothing is reported of them. The list is the worker's word
	// alone: one that has no such task runs what is ordered like any other.
	Left() []int
	// Send passes orders on; one goroutine at a time. It may keep the slices.
	// When the session has ended Send may return nil; Recv says why it ended.
	Send(Orders) error
	// Recv waits for the next report; one goroutine at a time. Results are
	// verified: signed by the worker, valid, of the job and of the spec that
	// was sent under their index.
	Recv() (Report, error)
	// Done says that nothing of the claim is wanted any more. The worker then
	// ends the session. It is called by the goroutine that sends, which sends
	// nothing after it.
	Done()
}

// MaxLeft bounds Session.Left.
const MaxLeft = 1024

// Order is one task to run; see Header.Order.
type Order struct {
	Index int
	Spec  tasks.Spec
	Part  Part // of Spec, beside what the header says
}

// Order returns the order to run a task.
func (h Header) Order(index int, p Part) Order { return Order{index, h.Spec(p), p} }

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
	Fetching bool   // contents that tasks wait for are arriving
}

// SignedResult is a result with the worker's word for it.
type SignedResult struct {
	tasks.Result
	Proof Proof

	digest [32]byte // of Result; set when it is checked
}

// Returned is a task that the worker gives back without having run it to an
// end.
type Returned struct {
	Index     int
	Why       string
	Unfetched bool // because a content that is stored could not be fetched
	Unfit     bool // because the worker cannot run it at any time: tasks.ErrUnfit
}

// Refusal says why a peer took no tasks.
type Refusal struct {
	Peer grid.PeerID
	Why  string
}
