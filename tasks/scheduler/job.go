package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/batch"
)

// Bounds and times of a run. The zero fields of Config mean these.
const (
	// MaxTasks bounds Job.Count.
	MaxTasks = 1 << 24
	// DefaultPeers and MaxPeers bound how many peers work on a job at once.
	DefaultPeers = 64
	MaxPeers     = 1024
	// DefaultWindow is how many tasks may be handed out or waiting to be
	// delivered at once; MaxWindow bounds what Config may ask for.
	DefaultWindow = 4096
	MaxWindow     = 1 << 20
	// DefaultBufferBytes is how much of results in memory may wait for
	// delivery before no further task is handed out, StageBytes how much of
	// fetched outputs on disk.
	DefaultBufferBytes = 64 << 20
	StageBytes         = 4 << 30
	// MaxAttempts is how often a task may be lost with its worker, whoever drives
	// the job, before it is given up.
	MaxAttempts = 5
	// MaxCopies is how many workers may run one task at the same time.
	MaxCopies = 2

	// HeartbeatEvery is how often each side of a claim sends something.
	HeartbeatEvery = 3 * time.Second
	// LeaseTTL is how long one side may be silent before the claim ends.
	LeaseTTL = 10 * time.Second
	// WorkerWait is how long a run goes on without any worker before the tasks
	// that remain are given up as lost.
	WorkerWait = 2 * time.Minute
)

// Job is a batch of tasks that differ in their Part. Its limits must be
// complete, see tasks.DefaultLimits.
type Job struct {
	Header
	Count int // number of tasks
	// Task returns what a task has of its own. It must always give the same for
	// one index, quickly, and is called by one goroutine at a time.
	Task func(index int) Part
	// Outputs asks for the files that tasks leave below /out.
	Outputs bool
	// Near: tasks have stored contents of their own, and go to workers that are
	// likely to have these, if there are any (Part.Near). Task is then called ahead.
	Near bool
}

// Spec returns what one task runs.
func (j Job) Spec(index int) tasks.Spec { return j.Header.Spec(j.Task(index)) }

// Validate reports what makes the whole job impossible, wrapping
// tasks.ErrInvalid. A task whose own arguments are invalid ends as failed.
func (j Job) Validate() error {
	switch {
	case j.Count < 0 || j.Count > MaxTasks:
		return fmt.Errorf("%w: %d tasks, at most %d", tasks.ErrInvalid, j.Count, MaxTasks)
	case j.Task == nil:
		return fmt.Errorf("%w: no tasks", tasks.ErrInvalid)
	}
	return j.Header.Validate()
}

// Config says how a job is run. Zero fields mean the documented constants.
type Config struct {
	Pool     Pool     // required
	Contents Contents // module, inputs and standard inputs; required
	// Dir is where outputs, and standard outputs that do not ride in a result, wait
	// for their delivery, in a directory of the run's own that is removed at its end.
	// Empty: the one for temporary files.
	Dir string
	// Held, if set, returns nil when a content that a worker says to have stored
	// can be read. A result with one of which it cannot is not taken: the task
	// runs elsewhere.
	Held func(ctx context.Context, s tasks.Stored) error
	// Name is what errors call a peer; nil: the beginning of its id.
	Name func(grid.PeerID) string
	// Peers is how many peers may work on the job at once.
	Peers int
	// AsTheyCome delivers results as they are accepted, not in order.
	AsTheyCome  bool
	Window      int
	BufferBytes int64
	// AtOnce is how many tasks may be at workers at once; 0: any number.
	AtOnce int
	// Retries is how often a task that fails, or meets a limit, is run; 0: once.
	// Where results are compared (Verify.Votes) it is how often sites must agree
	// that it fails.
	Retries int
	// Tries is how many runs of a task failed when the job ran before; they count
	// in Retries.
	Tries map[int]int
	// Failed, if set, hears of each failure after which the task is run again, with
	// the number of those that it has had. It must return quickly, not call back,
	// and may be called by any goroutine.
	Failed func(index, tries int)
	// Attempts is how many attempts at a task were lost with their workers when the
	// job ran before; they count in MaxAttempts.
	Attempts map[int]int
	// Lost, if set, hears when a task is handed out again of which attempts were
	// lost, with the number of those: once for each, and fewer than MaxAttempts times
	// for a task. It must return quickly, not call back, and may be called by any
	// goroutine.
	Lost func(index, attempts int)
	// TimeoutPercent ends tasks that run longer than so many percent of the
	// median of those that ended, as if they had met Limits.Wall; 0: none.
	TimeoutPercent int
	// Halt says when the job ends before all its tasks were run.
	Halt batch.Halt
	// Verify says how results are checked.
	Verify tasks.Verify
	// Started: the job ran before, so sites that its verification needs and
	// that are not there now are waited for, as workers are. Otherwise Run
	// fails with ErrTooFewSites before anything runs.
	Started bool
	// Reclaim: another drove the job before, so workers that have tasks of it
	// (Session.Left) are looked for before anything is begun.
	Reclaim bool
	// Trust is how many checked results in a row were right, by peer, when the
	// job ran before; negative: the peer was caught. VerifyAdaptive starts from
	// it.
	Trust map[grid.PeerID]int
	// Known, if set, returns the result of a task that need not run, or nil: it
	// was accepted when the job ran before, or is remembered from other jobs.
	// It is asked once for each task, by one goroutine, with tasks.Spec.ID. A
	// result of another verification than this run's is for Known to refuse.
	Known func(spec [32]byte, index int) *Accepted
	// Caught, if set, hears of each peer that gave a wrong result, from the
	// goroutine that receives results and before any that follows from it. An
	// error ends the run.
	Caught func(Caught) error
	// WorkerWait: see the constant.
	WorkerWait time.Duration
	// Patient: peers that cannot run the job (tasks.ErrUnfit) are waited for like
	// others that refuse. Otherwise the run ends soon when all that are there
	// cannot.
	Patient bool
	// Progress, if set, is called from time to time and at the end; it must
	// return quickly and not call back.
	Progress func(Progress)
	// Waiting, if set, is called from time to time while no worker gets the job
	// on, not in the first seconds, with why peers took no tasks; none: no peer
	// gives slots. It must return quickly and not call back.
	Waiting func([]Refusal)
	Rand    *rand.Rand   // choice of candidates; nil: random
	Logger  *slog.Logger // nil: discard
}

// Contents opens the contents of a job, and of its tasks, where it is driven.
// Its methods are safe for concurrent use.
type Contents interface {
	// OpenContent returns the bytes and their number. The caller closes.
	OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error)
}

func (c Config) withDefaults() Config {
	if c.Peers == 0 {
		c.Peers = DefaultPeers
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = DefaultBufferBytes
	}
	if c.WorkerWait == 0 {
		c.WorkerWait = WorkerWait
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports all faults, joined.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(c.Pool != nil, "no pool of workers")
	check(c.Contents != nil, "no source of contents")
	check(c.Peers >= 0 && c.Peers <= MaxPeers, "peers %d is not between 1 and %d", c.Peers, MaxPeers)
	check(c.AtOnce >= 0, "%d tasks at once", c.AtOnce)
	check(c.Retries >= 0, "%d retries", c.Retries)
	check(c.TimeoutPercent >= 0, "a time limit of %d %%", c.TimeoutPercent)
	check(c.Window >= 0 && c.Window <= MaxWindow, "window %d is not between 1 and %d", c.Window, MaxWindow)
	check(c.BufferBytes >= 0, "buffer of %d bytes", c.BufferBytes)
	check(c.WorkerWait >= 0, "negative wait for workers")
	if err := c.Verify.Validate(); err != nil {
		faults = append(faults, err)
	}
	check(c.Peers == 0 || !c.Verify.Votes() || c.Peers >= max(checkedBy, c.Verify.Need), "%d peers cannot check results by %s", c.Peers, c.Verify)
	return errors.Join(faults...)
}

// Progress counts the tasks of a run.
type Progress struct {
	Tasks   int // in all
	Ended   int // accepted, whatever their state
	Failed  int // of them, those that are not done
	Running int // handed out to a worker
	Peers   int // working now
}

// Summary says how a run went.
type Summary struct {
	Tasks      int
	Done       int
	Failed     int
	Limited    int
	Lost       int
	Cancelled  int  // stopped by Config.Halt while they ran
	Stopped    int  // were running when ctx ended; they have no result
	NotBegun   int  // that were never run
	Halted     bool // by Config.Halt
	Retried    int  // times that a task was handed out again after an attempt failed
	Duplicated int  // times that a running task was started a second time
	Dropped    int  // results that came after their task was accepted
	Remembered int  // of those that ended, taken from Config.Known
	Checked    int  // of those that ended, on whose result distinct sites agree
	Caught     int  // peers that gave a wrong result
	Unfit      int  // of those lost, that every peer which takes the others cannot run
	Voided     int  // results of such peers that no longer stood when they were caught
	Peers      int  // that gave at least one accepted result
	Elapsed    time.Duration
	// Refusals says in words why peers took no tasks, at most one line each.
	Refusals []Refusal
	// Running has the tasks that were running when ctx ended, at most 64.
	Running []Running
}

// Ended returns the number of tasks that have a result.
func (s Summary) Ended() int { return s.Done + s.Failed + s.Limited + s.Lost + s.Cancelled }
