package jobs

import (
	"context"
	"io"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// numbered lets a scheduler that counts the tasks of one step from 0 work with
// peers that know tasks by their index in the job. So the tasks of two steps
// have different names on a worker, and under its signature.
type numbered struct {
	scheduler.Pool
	first int
}

// Worker implements scheduler.Pool.
func (n numbered) Worker(peer grid.PeerID) (scheduler.Worker, error) {
	w, err := n.Pool.Worker(peer)
	if err != nil || n.first == 0 {
		return w, err
	}
	return numberedWorker{w, n.first}, nil
}

type numberedWorker struct {
	scheduler.Worker
	first int
}

func (n numberedWorker) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	s, err := n.Worker.Claim(ctx, h)
	if err != nil {
		return nil, err
	}
	return numberedSession{s, n.first}, nil
}

func (n numberedWorker) OpenOutput(ctx context.Context, task tasks.TaskID, content tasks.ContentID) (io.ReadCloser, error) {
	task.Index += n.first
	return n.Worker.OpenOutput(ctx, task, content)
}

type numberedSession struct {
	scheduler.Session
	first int
}

func (n numberedSession) Left() []int {
	list := n.Session.Left()
	out := make([]int, len(list))
	for i, index := range list {
		out[i] = index - n.first
	}
	return out
}

func (n numberedSession) Send(o scheduler.Orders) error {
	out := scheduler.Orders{Tasks: make([]scheduler.Order, len(o.Tasks)), Cancel: n.shift(o.Cancel), Release: n.shift(o.Release)}
	for i, t := range o.Tasks {
		t.Index += n.first
		out.Tasks[i] = t
	}
	return n.Session.Send(out)
}

func (n numberedSession) shift(list []int) []int {
	out := make([]int, len(list))
	for i, index := range list {
		out[i] = index + n.first
	}
	return out
}

func (n numberedSession) Recv() (scheduler.Report, error) {
	r, err := n.Session.Recv()
	if err != nil {
		return r, err
	}
	for i := range r.Results {
		r.Results[i].Task.Index -= n.first
	}
	for i := range r.Returned {
		r.Returned[i].Index -= n.first
	}
	return r, nil
}
