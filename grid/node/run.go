package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

const (
	itemMark         = "{}" // replaced by the item in arguments
	outputPieceBytes = 256 << 10
)

// Run takes a job from the command line, runs it and streams its results.
func (s *service) Run(stream runStream) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	start := request.GetStart()
	if start == nil {
		return fmt.Errorf("%w: a run begins with its start", tasks.ErrInvalid)
	}
	dir, err := os.MkdirTemp(s.peer.work.submitDir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := receiveFiles(stream, dir, start)
	if err != nil {
		return err
	}
	job, err := newJob(start, files)
	if err != nil {
		return err
	}
	if err := s.peer.grantRun(stream.Context(), &job, files); err != nil {
		return err
	}
	return s.peer.runJob(stream.Context(), job, files, start, stream.Send)
}

// newJob makes a job of what the command line said.
func newJob(start *controlv1.RunStart, files *uploads) (scheduler.Job, error) {
	limits := tasks.CeilingLimits()
	limits.MemoryBytes = int64(start.MemoryBytes)
	limits.Wall = time.Duration(start.TimeoutMillis) * time.Millisecond
	args := argsOf(start)
	job := scheduler.Job{
		Header: scheduler.Header{Job: tasks.NewJobID(), Module: files.files[0].content, Inputs: files.inputs(), Limits: limits},
		Count:  1, Task: func(i int) scheduler.Part { return scheduler.Part{Args: args(i)} }, Outputs: start.Outputs,
	}
	if start.HasItems {
		job.Count = len(start.Items)
	}
	return job, job.Validate()
}

// argsOf returns the arguments of each task: {} is replaced by the item;
// without {} the item comes last.
func argsOf(start *controlv1.RunStart) func(int) []string {
	template := make([]string, len(start.Args))
	marked := false
	for i, arg := range start.Args {
		template[i] = string(arg)
		marked = marked || strings.Contains(template[i], itemMark)
	}
	return func(index int) []string {
		if !start.HasItems {
			return template
		}
		item := string(start.Items[index])
		args := make([]string, 0, len(template)+1)
		for _, arg := range template {
			args = append(args, strings.ReplaceAll(arg, itemMark, item))
		}
		if !marked {
			args = append(args, item)
		}
		return args
	}
}

// runJob runs a job to its end and sends what happens, in the order of the
// items.
func (p *Peer) runJob(ctx context.Context, job scheduler.Job, contents scheduler.Contents, start *controlv1.RunStart, send func(*controlv1.RunEvent) error) error {
	events := runEvents{peer: p, start: start, send: send}
	cfg, receive := p.remember(job, scheduler.Config{
		Pool: p.work, Contents: contents, Dir: p.work.submitDir, Peers: int(start.Peers), Logger: p.logger,
	}, false, events.result)
	sum, err := scheduler.Run(ctx, job, cfg, receive)
	if err != nil {
		return err
	}
	if err := nobodyWorked(sum); err != nil {
		return err
	}
	return send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Summary{Summary: &controlv1.RunSummary{
		Tasks: uint64(sum.Tasks), Done: uint64(sum.Done), Failed: uint64(sum.Tasks - sum.Done),
		Retried: uint64(sum.Retried), Seconds: sum.Elapsed.Seconds(), Peers: uint32(sum.Peers),
	}}})
}

// nobodyWorked explains a run of which no task was ever taken.
func nobodyWorked(sum scheduler.Summary) error {
	if sum.Tasks == 0 || sum.Lost < sum.Tasks {
		return nil
	}
	var why []string
	for _, r := range sum.Refusals {
		why = append(why, r.Peer.Short()+": "+r.Why)
	}
	if len(why) == 0 {
		why = []string{"no peer that is alive gives task slots"}
	}
	return &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: "no peer took a task: " + strings.Join(why, "; "),
		Meaning: "no task was run to its end", Next: "gotong peers, then gotong run again"}
}

// runEvents sends the results of one run.
type runEvents struct {
	peer  *Peer
	start *controlv1.RunStart
	send  func(*controlv1.RunEvent) error
}

func (e *runEvents) result(a *scheduler.Accepted) error {
	index := uint64(a.Task.Index)
	task := &controlv1.RunTask{
		Index: index, State: string(a.State), ExitCode: int32(a.ExitCode), Stdout: a.Stdout, Stderr: a.Stderr,
		Seconds: a.Elapsed.Seconds(), Why: validText(a.Why),
	}
	if !a.Peer.IsZero() {
		if !a.FromCache {
			e.peer.tookWork(a.Peer, a.Elapsed)
		}
		task.Peer, task.PeerName = a.Peer.String(), e.peer.nameOf(a.Peer)
	}
	if e.start.HasItems {
		task.Item = e.start.Items[a.Task.Index]
	}
	if err := e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Task{Task: task}}); err != nil {
		return err
	}
	if !e.start.Outputs {
		return nil
	}
	for _, out := range a.Outputs {
		if err := e.output(index, a, out); err != nil {
			return fmt.Errorf("output %q of task %d: %w", out.Name, index, err)
		}
	}
	return nil
}

// output sends one file in pieces; an empty file is one empty piece.
func (e *runEvents) output(index uint64, a *scheduler.Accepted, out tasks.Output) error {
	r, err := a.OpenOutput(out)
	if err != nil {
		return err
	}
	defer r.Close()
	buffer := make([]byte, outputPieceBytes)
	for first := true; ; first = false {
		n, err := io.ReadFull(r, buffer)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		piece := &controlv1.RunOutput{Index: index, Path: out.Name, Data: buffer[:n], First: first, Last: last}
		if err := e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Output{Output: piece}}); err != nil || last {
			return err
		}
	}
}
