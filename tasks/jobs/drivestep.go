package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

// stepRun is one step that runs.
type stepRun struct {
	*drive
	ctx      context.Context // of this step
	stop     context.CancelCauseFunc
	number   int
	step     Step
	dir      string // removed at the end
	template *batch.Template
	items    *ItemsReader // nil: it runs once, without an item
	common   common       // what all tasks get of the steps before
	files    *localFiles
	trust    map[grid.PeerID]int // as the journal had it, and who was caught since; used by who receives results
	again    sync.Map            // places of tasks whose result in the journal cannot be read

	lastMu sync.Mutex
	last   *tasks.Result // see decoded
}

// errStepFailed ends the run of a step that is not to go on.
var errStepFailed = errors.New("a task failed")

// step runs the tasks of a step that have no result yet. It returns once what
// they gave is durable.
func (d *drive) step(ctx context.Context, number int) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	dir, err := os.MkdirTemp(d.Dir, "step-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &stepRun{
		drive: d, ctx: ctx, stop: stop, number: number, step: d.plan.Steps[number], dir: dir,
		files: &localFiles{byID: map[tasks.ContentID]*localFile{}, of: map[int]map[tasks.ContentID]bool{}},
	}
	if err := r.open(); err != nil {
		return r.impossible(err)
	}
	defer r.close()
	pool, err := d.Pool(r.step)
	if err != nil {
		return r.impossible(err)
	}
	job, cfg, err := r.job(pool)
	if err != nil {
		return r.impossible(err)
	}
	d.Logger.Info("step begins", "step", r.step.Name, "tasks", r.step.Items.Count)
	receive := r.receive
	if d.Remember != nil { // what is begun anew is to run
		cfg, receive = d.Remember(job, cfg, d.plan.NoCache || d.generation > 0, receive)
	}
	_, err = scheduler.Run(ctx, job, cfg, receive)
	if err := d.recorder.sync(); err != nil {
		return err
	}
	switch {
	case errors.Is(err, errStepFailed):
		return nil
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, tasks.ErrInvalid):
		return r.impossible(err)
	}
	return err
}

// impossible makes an error that no later try changes the result of all tasks
// of the step that have none. Others are returned.
func (r *stepRun) impossible(err error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if !errors.Is(err, tasks.ErrInvalid) && !errors.Is(err, batch.ErrSyntax) {
		return err
	}
	r.Logger.Warn("step cannot be run", "step", r.step.Name, "err", err)
	for i := range r.step.Items.Count {
		if _, have := r.accepted(i); have {
			continue
		}
		a := &scheduler.Accepted{Result: tasks.Result{
			Task:  tasks.TaskID{Job: r.plan.Job, Index: r.step.First + i},
			State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Why: clip(err.Error()),
		}}
		res, err := newResult(a, r.step.First+i)
		if err != nil {
			return err
		}
		if err := r.recorder.add(res, nil); err != nil {
			return err
		}
		if r.step.OnFailure == FailureStop {
			break
		}
	}
	return r.recorder.sync()
}

func (r *stepRun) accepted(i int) (state tasks.State, have bool) {
	r.Job.View(func(s *State) { state, have = s.Accepted(r.step.First + i) })
	return state, have
}

// open gets what the tasks are made of.
func (r *stepRun) open() error {
	var err error
	if r.template, err = batch.ParseTemplate(r.step.Args, false); err != nil {
		return err
	}
	if err := r.openItems(); err != nil {
		return fmt.Errorf("list of items: %w", err)
	}
	return r.gather()
}

// openItems brings the list of items here.
func (r *stepRun) openItems() error {
	i := r.step.Items
	switch {
	case i.Content.IsZero():
		return nil
	case len(i.Data) > 0:
		var err error
		r.items, err = inlineItems(i)
		return err
	}
	f, err := r.fetch(i.Content)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		r.items, err = OpenItems(f, info.Size(), i.Count)
	}
	if err != nil {
		f.Close()
		return err
	}
	context.AfterFunc(r.ctx, func() { f.Close() })
	return nil
}

// fetch returns a file with a content of the plan.
func (r *stepRun) fetch(id tasks.ContentID) (*os.File, error) {
	if f, err := os.Open(r.Job.ContentPath(id)); err == nil {
		return f, nil
	}
	stored, ok := r.step.Stored[id]
	if !ok {
		return nil, fmt.Errorf("content %s: %w", id.Short(), tasks.ErrNoContent)
	}
	from, err := r.Contents.Open(r.ctx, r.plan, id, stored)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	f, err := os.CreateTemp(r.dir, "content-")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, from); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (r *stepRun) close() { r.stop(errOver) }

// job returns what the scheduler is to run.
func (r *stepRun) job(pool scheduler.Pool) (scheduler.Job, scheduler.Config, error) {
	s := r.step
	verify, err := tasks.ParseVerify(s.Verify)
	if err != nil {
		return scheduler.Job{}, scheduler.Config{}, err
	}
	job := scheduler.Job{
		Header: scheduler.Header{
			Job: r.plan.Job, Runtime: s.Runtime, Module: s.Module, Command: s.Command(), Limits: s.Limits, Inputs: r.common.inputs(s.Common),
			Grant: r.plan.Grant, Key: r.plan.Key, Stored: r.common.stored(s.Stored), StoreOutputs: s.Outputs, StoreStdout: !r.plan.Key.IsZero(), Step: s.First,
			Priority: r.plan.Priority, Outlive: true,
		},
		Count: s.Items.Count, Task: r.task, Outputs: s.Outputs,
	}
	job.Near, err = r.near()
	if err != nil {
		return job, scheduler.Config{}, err
	}
	if len(job.Inputs) > tasks.MaxInputs {
		return job, scheduler.Config{}, invalid("%d input files for each task, at most %d; take the standard output of the step instead, or gather fewer", len(job.Inputs), tasks.MaxInputs)
	}
	cfg := scheduler.Config{
		Pool: numbered{pool, s.First}, Contents: r, Dir: r.dir, Peers: s.MaxPeers, AsTheyCome: true,
		Verify: verify, Started: true, Known: r.known, Caught: r.caught, Logger: r.Logger,
		WorkerWait: max(time.Hour, time.Until(r.plan.Expires)), Patient: true, Reclaim: r.Epoch > firstEpoch,
		Held: func(ctx context.Context, s tasks.Stored) error { return r.Contents.Held(ctx, r.plan, s) },
	}
	if s.Retries > 0 {
		cfg.Retries = s.Retries + 1 // runs
		cfg.Failed = func(i, tries int) { r.recorder.tried(Tried{s.First + i, tries}, triedOfRecord) }
	}
	cfg.Lost = func(i, attempts int) {
		if r.ctx.Err() == nil { // else the workers were left, not lost
			r.recorder.tried(Tried{s.First + i, attempts}, lostOfRecord)
		}
	}
	r.Job.View(func(state *State) {
		cfg.Tries, cfg.Attempts = state.Tries(r.number), state.Lost(r.number)
		r.trust, cfg.Trust = state.Trust(), state.Trust()
	})
	return job, cfg, nil
}

// near reports whether tasks are likely to have stored contents of their own.
func (r *stepRun) near() (bool, error) {
	for _, need := range r.step.Needs {
		if need.Files && !need.Gather {
			return true, nil
		}
	}
	if r.items == nil || r.step.Items.Count == 0 {
		return false, nil
	}
	first, err := r.items.Item(0)
	return len(first.Stored) > 0, err
}

// task returns what one task has of its own.
func (r *stepRun) task(i int) scheduler.Part {
	part, err := r.part(i)
	switch {
	case errors.Is(err, batch.ErrSyntax): // they became too long; the scheduler refuses so many, and the task fails
		return scheduler.Part{Args: make([]string, tasks.MaxArgs+1)}
	case err != nil:
		r.stop(fmt.Errorf("task %d: %w", i, err))
		return scheduler.Part{}
	}
	return part
}

func (r *stepRun) part(i int) (scheduler.Part, error) {
	var own *Item
	if r.items != nil {
		item, err := r.items.Item(i)
		if err != nil {
			return scheduler.Part{}, err
		}
		own = &item
		for _, data := range item.Inline {
			r.files.add(i, blake3.Sum256(data), localFile{item: true, task: i})
		}
	}
	part, err := ownPart(r.template, i, own)
	if err != nil {
		return part, err
	}
	if !r.common.stdin.IsZero() {
		part.Stdin, part.StdinSize = r.common.stdin, r.common.stdinSize
	}
	return part, r.fromNeeds(i, &part)
}

// known returns the result that a task has already.
func (r *stepRun) known(_ [32]byte, i int) *scheduler.Accepted {
	if _, have := r.accepted(i); have {
		res, ok, err := r.Job.Result(r.step.First + i)
		if err != nil || !ok {
			r.Logger.Warn("a result cannot be read; the task runs again", "task", r.step.First+i, "err", err)
			r.again.Store(i, true)
			return nil
		}
		a, err := res.accepted(i)
		if err != nil {
			r.Logger.Warn("a result cannot be read; the task runs again", "task", r.step.First+i, "err", err)
			r.again.Store(i, true)
			return nil
		}
		return a
	}
	return nil
}

// receive takes an accepted result in.
func (r *stepRun) receive(a *scheduler.Accepted) error {
	local := a.Task.Index
	defer r.files.drop(local)
	index := r.step.First + local
	if a.Replaces != ([32]byte{}) {
		if err := r.recorder.sync(); err != nil { // so that the state has what is replaced
			return err
		}
	}
	var have bool
	var revision uint32
	r.Job.View(func(s *State) {
		_, have = s.Accepted(index)
		revision = s.tasks[index].revision
	})
	if _, again := r.again.Load(local); have && !again && a.Replaces == ([32]byte{}) {
		return nil // it is in the journal
	}
	if err := r.keepOutputs(a); err != nil {
		return err
	}
	res, err := r.newResult(a, index)
	if err != nil {
		return err
	}
	if have {
		res.Revision = revision + 1
	}
	if err := r.recorder.add(res, r.confirm(a)); err != nil {
		return err
	}
	if a.State != tasks.StateDone && r.step.OnFailure == FailureStop {
		return errStepFailed
	}
	return nil
}

// newResult returns the record of an accepted result.
func (r *stepRun) newResult(a *scheduler.Accepted, index int) (Result, error) {
	if !a.FromCache {
		return newResult(a, index)
	}
	vouched, err := Vouch(r.Key, r.plan.Job, []Known{{index, a.Result, a.Checked}})
	if err != nil {
		return Result{}, err
	}
	return vouched[0], nil
}

// caught writes down who gave a wrong result.
func (r *stepRun) caught(c scheduler.Caught) error {
	wrong, err := newVote(c.Vote, r.step.First+c.Task)
	if err != nil {
		return err
	}
	r.recorder.put(func(record *Record) {
		record.Evidence = []Result{wrong}
		record.Trust = []Trust{{Peer: c.Vote.Peer, Value: TrustCaught}}
	})
	r.trust[c.Vote.Peer] = TrustCaught
	return nil
}

// confirm returns what is thought now of those whose results were compared, for
// the journal: whoever drives the job next goes on from there.
func (r *stepRun) confirm(a *scheduler.Accepted) (trust []Trust) {
	for peer, value := range a.Trust {
		if r.trust[peer] != TrustCaught {
			trust = append(trust, Trust{peer, value})
		}
	}
	return trust
}

// keepOutputs copies what is nowhere else into the job's directory.
func (r *stepRun) keepOutputs(a *scheduler.Accepted) error {
	for _, out := range a.Large(r.step.Outputs) {
		if out.Stored != nil {
			continue
		}
		from, err := a.OpenOutput(*out)
		if err != nil {
			return err
		}
		err = r.Job.KeepContent(out.Content, from)
		if err := errors.Join(err, from.Close()); err != nil {
			return fmt.Errorf("output %q of task %d: %w", out.Name, r.step.First+a.Task.Index, err)
		}
	}
	return nil
}

// emptyContent is the id of no bytes, which nobody needs to keep.
var emptyContent = tasks.ContentID(blake3.Sum256(nil))

// OpenContent implements scheduler.Contents.
func (r *stepRun) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	if from, size, ok, err := r.files.open(r, id); ok || err != nil {
		return from, size, err
	}
	if id == emptyContent {
		return bytesReader(nil), 0, nil
	}
	f, err := os.Open(r.stdinPath(id))
	if errors.Is(err, os.ErrNotExist) {
		f, err = r.fetch(id)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// accepted returns a result as the scheduler takes it for known, under the place
// of the task in its step.
func (r Result) accepted(place int) (*scheduler.Accepted, error) {
	out, err := r.Decode()
	if err != nil {
		return nil, err
	}
	out.Task.Index = place
	a := &scheduler.Accepted{Result: out, Proof: r.proof(), Attempts: r.Attempts, Checked: r.Checked}
	if r.Batch != nil {
		a.Votes = append(a.Votes, scheduler.Vote{Peer: r.Peer, Site: r.Site, Result: out.Digest(), Engine: out.Engine, Proof: r.proof()})
	}
	for _, v := range r.Votes {
		said, err := v.Decode()
		if err != nil {
			return nil, err
		}
		a.Votes = append(a.Votes, scheduler.Vote{Peer: v.Peer, Site: v.Site, Result: said.Digest(), Engine: said.Engine, Proof: v.proof()})
	}
	return a, nil
}

// localFiles are contents of single tasks that this driver hands over itself,
// for as long as the tasks have no result. It is safe for concurrent use.
type localFiles struct {
	mu   sync.Mutex
	byID map[tasks.ContentID]*localFile
	of   map[int]map[tasks.ContentID]bool
}

// localFile is an output, or the standard output, of a task of the job; or a
// content that rides in the list of items.
type localFile struct {
	item  bool
	task  int    // index in the job; of an item its place in the step
	name  string // of the output; empty: its standard output
	users int
}

func (l *localFiles) add(place int, id tasks.ContentID, file localFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[place][id] {
		return
	}
	f := l.byID[id]
	if f == nil {
		f = &file
		l.byID[id] = f
	}
	f.users++
	if l.of[place] == nil {
		l.of[place] = map[tasks.ContentID]bool{}
	}
	l.of[place][id] = true
}

func (l *localFiles) drop(place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.of[place] {
		if f := l.byID[id]; f != nil {
			if f.users--; f.users <= 0 {
				delete(l.byID, id)
			}
		}
	}
	delete(l.of, place)
}

func (l *localFiles) open(r *stepRun, id tasks.ContentID) (io.ReadCloser, int64, bool, error) {
	l.mu.Lock()
	f := l.byID[id]
	l.mu.Unlock()
	if f == nil {
		return nil, 0, false, nil
	}
	if f.item {
		from, size, err := r.itemFile(f.task, id)
		return from, size, true, err
	}
	from, size, err := r.resultFile(f.task, f.name)
	return from, size, true, err
}

// itemFile opens a content that rides in the list of items.
func (r *stepRun) itemFile(place int, id tasks.ContentID) (io.ReadCloser, int64, error) {
	item, err := r.items.Item(place)
	if err != nil {
		return nil, 0, err
	}
	for _, data := range item.Inline {
		if blake3.Sum256(data) == id {
			return bytesReader(data), int64(len(data)), nil
		}
	}
	return nil, 0, fmt.Errorf("content %s of item %d: %w", id.Short(), place, tasks.ErrNoContent)
}

// resultFile opens an output of a task of the job, or its standard output.
func (r *stepRun) resultFile(task int, name string) (io.ReadCloser, int64, error) {
	out, err := r.decoded(task)
	if err != nil {
		return nil, 0, err
	}
	if name == "" {
		from, err := r.openStdout(out)
		return from, out.StdoutSize(), err
	}
	i, ok := slices.BinarySearchFunc(out.Outputs, name, func(o tasks.Output, name string) int { return strings.Compare(o.Name, name) })
	if !ok {
		return nil, 0, fmt.Errorf("output %q of task %d: %w", name, task, os.ErrNotExist)
	}
	o := out.Outputs[i]
	if o.Inline() {
		return bytesReader(o.Data), o.Size, nil
	}
	f, err := os.Open(r.Job.ContentPath(o.Content))
	return f, o.Size, err
}

// decoded returns the result of a task of a step before, of which one is kept: many
// outputs of one task are asked for one after the other.
func (r *stepRun) decoded(task int) (tasks.Result, error) {
	r.lastMu.Lock()
	defer r.lastMu.Unlock()
	if r.last != nil && r.last.Task.Index == task {
		return *r.last, nil
	}
	res, ok, err := r.Job.Result(task)
	if err != nil || !ok {
		return tasks.Result{}, errors.Join(err, fmt.Errorf("result of task %d: %w", task, os.ErrNotExist))
	}
	out, err := res.Decode()
	if err != nil {
		return out, err
	}
	out.Task.Index = task
	r.last = &out
	return out, nil
}

// openStdout opens the standard output of a task of the job, wherever it is.
func (r *stepRun) openStdout(out tasks.Result) (io.ReadCloser, error) {
	switch large := out.LargeStdout; {
	case large == nil:
		return bytesReader(out.Stdout), nil
	case large.Stored != nil:
		return r.Contents.Open(r.ctx, r.plan, large.Content, *large.Stored)
	default:
		f, err := os.Open(r.Job.ContentPath(large.Content))
		if err != nil {
			return nil, err // not a nil *os.File in an interface
		}
		return f, nil
	}
}
