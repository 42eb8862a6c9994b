package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobs"
)

// JobResults gives the results of a job.
func (s *service) JobResults(r *controlv1.JobResultsRequest, stream grpc.ServerStreamingServer[controlv1.JobEvent]) error {
	ctx := stream.Context()
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return err
	}
	only, err := stepNamed(job.Plan(), r.Step)
	if err != nil {
		return err
	}
	out := &jobResults{peer: s.peer, ctx: ctx, outputs: r.Outputs, send: stream.Send, items: map[int]*jobs.ItemsReader{}, specs: map[int]*jobs.Specs{}, sent: map[int]uint64{}}
	defer out.close()
	for {
		changed := job.Changed()
		out.over = stateOf(job.Job).Over()
		if err := out.all(job, only); err != nil {
			return err
		}
		if out.over || !r.Follow {
			return stream.Send(&controlv1.JobEvent{Event: &controlv1.JobEvent_End{End: s.peer.jobInfo(job, false)}})
		}
		if job, err = s.peer.await(ctx, job, changed); err != nil {
			return err
		}
	}
}

// jobResults sends results of one job.
type jobResults struct {
	peer    *Peer
	ctx     context.Context
	outputs bool
	over    bool // the job is, so its results stand
	send    func(*controlv1.JobEvent) error
	items   map[int]*jobs.ItemsReader
	specs   map[int]*jobs.Specs // nil: they are not known
	closers []io.Closer
	temps   []string
	sent    map[int]uint64 // places of the results that were sent, by task
}

func (r *jobResults) close() {
	for _, c := range r.closers {
		c.Close()
	}
	for _, path := range r.temps {
		os.Remove(path)
	}
}

// all sends every result that was not sent yet.
func (r *jobResults) all(job keptJob, only int) error {
	plan := job.Plan()
	for number, step := range plan.Steps {
		if only >= 0 && number != only {
			continue
		}
		for i := range step.Items.Count {
			index := step.First + i
			var place int64
			var ok bool
			job.View(func(s *jobs.State) { place, ok = s.Place(index) })
			if !ok || r.sent[index] == uint64(place) {
				continue
			}
			if err := r.one(job, number, i); err != nil {
				return fmt.Errorf("task %d of step %q: %w", i, step.Name, err)
			}
			r.sent[index] = uint64(place)
		}
	}
	return nil
}

func (r *jobResults) one(job keptJob, number, i int) error {
	plan := job.Plan()
	step := plan.Steps[number]
	res, ok, err := job.Result(step.First + i)
	if err != nil || !ok {
		return err
	}
	result, err := res.Decode()
	if err != nil {
		return err
	}
	task := &controlv1.JobTask{
		Index: uint64(i), Step: step.Name, State: string(result.State), ExitCode: int64(result.ExitCode), Stdout: result.Stdout, Stderr: result.Stderr,
		Seconds: result.Elapsed.Seconds(), Why: validText(result.Why), Engine: validText(result.Engine), Attempts: uint32(res.Attempts),
		Checked: res.Checked, Remembered: res.Remembered,
	}
	large := result.LargeStdout
	if !res.Peer.IsZero() {
		task.Peer, task.PeerName = res.Peer.String(), r.peer.nameOf(res.Peer)
	}
	item, err := r.item(job, number, i)
	if err != nil {
		return err
	}
	if item != nil {
		for _, w := range item.Words {
			task.Item = append(task.Item, []byte(w))
		}
	}
	if err := r.peer.verifyResult(plan, res); err != nil {
		task.Invalid, large = err.Error(), nil
	} else if r.over {
		r.remember(job, number, i, item, res, result)
	}
	if large != nil {
		task.StdoutBytes = uint64(large.Size)
	}
	if err := r.send(&controlv1.JobEvent{Event: &controlv1.JobEvent_Task{Task: task}}); err != nil {
		return err
	}
	if large != nil {
		if err := r.stdout(job, uint64(i), *large); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
	}
	if !r.outputs || task.Invalid != "" {
		return nil
	}
	for _, out := range result.Outputs {
		if err := r.output(job, uint64(i), out); err != nil {
			return fmt.Errorf("output %q: %w", out.Name, err)
		}
	}
	return nil
}

// verifyResult returns nil when a worker signed the result, or a peer of the
// job's owner that remembers it.
func (p *Peer) verifyResult(plan jobs.Plan, res jobs.Result) error {
	if owner, ok := p.roster.View().OwnerOf(res.Peer); res.Remembered && (!ok || owner != plan.Owner) {
		return errors.New("a peer of another owner says that it remembers this result")
	}
	return res.Verify(plan.Job)
}

// remember has a result remembered on this peer.
func (r *jobResults) remember(job keptJob, number, i int, item *jobs.Item, res jobs.Result, result tasks.Result) {
	specs, ok := r.specs[number]
	if !ok {
		var err error
		if specs, _, err = job.Plan().Steps[number].Specs(); err != nil {
			specs = nil // nothing of it ran
		}
		r.specs[number] = specs
	}
	if specs == nil {
		return
	}
	if spec, err := specs.Spec(i, item); err == nil {
		r.peer.rememberFetched(job.ID(), spec, res, result)
	}
}

// item returns an item, nil when the step has none.
func (r *jobResults) item(job keptJob, number, i int) (*jobs.Item, error) {
	items := job.Plan().Steps[number].Items
	if items.Content.IsZero() {
		return nil, nil
	}
	if r.items[number] == nil {
		path, err := r.fetch(job, number)
		if err != nil {
			return nil, err
		}
		reader, closer, err := items.Open(path)
		if err != nil {
			return nil, err
		}
		r.items[number] = reader
		r.closers = append(r.closers, closer)
	}
	item, err := r.items[number].Item(i)
	if err != nil {
		return nil, err
	}
	return &item, nil
}

// fetch returns a file with the list of items of a step.
func (r *jobResults) fetch(job keptJob, number int) (string, error) {
	step := job.Plan().Steps[number]
	id := step.Items.Content
	if len(step.Items.Data) > 0 {
		return "", nil
	}
	if _, err := os.Stat(job.ContentPath(id)); err == nil {
		return job.ContentPath(id), nil
	}
	from, err := keptContents{r.peer.keeping.contents}.Open(r.ctx, job.Plan(), id, step.Stored[id])
	if err != nil {
		return "", err
	}
	defer from.Close()
	f, err := os.CreateTemp(r.peer.work.submitDir, "items-")
	if err != nil {
		return "", err
	}
	r.temps = append(r.temps, f.Name())
	_, err = io.Copy(f, from)
	return f.Name(), errors.Join(err, f.Close())
}

// stdout sends a standard output that does not ride in its result.
func (r *jobResults) stdout(job keptJob, index uint64, out tasks.Output) error {
	from, err := r.open(job, out)
	if err != nil {
		return err
	}
	defer from.Close()
	return sendPieces(from, index, "", func(piece *controlv1.RunOutput) error {
		return r.send(&controlv1.JobEvent{Event: &controlv1.JobEvent_Stdout{Stdout: piece}})
	})
}

// output sends one file of a result.
func (r *jobResults) output(job keptJob, index uint64, out tasks.Output) error {
	from, err := r.open(job, out)
	if err != nil {
		return err
	}
	defer from.Close()
	return sendPieces(from, index, out.Name, func(piece *controlv1.RunOutput) error {
		return r.send(&controlv1.JobEvent{Event: &controlv1.JobEvent_Output{Output: piece}})
	})
}

// open opens an output, wherever it is.
func (r *jobResults) open(job keptJob, out tasks.Output) (io.ReadCloser, error) {
	switch {
	case out.Inline():
		return io.NopCloser(bytes.NewReader(out.Data)), nil
	case out.Stored != nil:
		return keptContents{r.peer.keeping.contents}.Open(r.ctx, job.Plan(), out.Content, *out.Stored)
	}
	f, err := os.Open(job.ContentPath(out.Content))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "the file is with the peer that drove the job, and nowhere else",
			Meaning: "it could not be stored on the grid; the other results are not affected", Next: "the same command on that peer, or when it is back"}
	}
	return f, err
}
