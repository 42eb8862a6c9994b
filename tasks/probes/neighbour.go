package probes

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"gotong/tasks"
	"gotong/tasks/guests"
	"gotong/tasks/sandbox"
)

// neighbour is a task of somebody else that runs beside the hostile ones, again
// and again, in a child of its own.
type neighbour struct {
	child *sandbox.Child
	dir   string
	stop  context.CancelFunc
	ended chan struct{}

	runs  int
	wrong string // the first answer that was not as it must be
}

func (r *run) startNeighbour(ctx context.Context) (*neighbour, error) {
	dir, err := r.staging()
	if err != nil {
		return nil, err
	}
	limits := tasks.DefaultLimits()
	c, err := r.launcher.Start(ctx, sandbox.Config{Dir: dir, Module: guests.Module(guests.Echo), Limits: limits})
	if err != nil {
		return nil, fmt.Errorf("a harmless program: %w", err)
	}
	n := &neighbour{child: c, dir: dir, ended: make(chan struct{})}
	ctx, n.stop = context.WithCancel(ctx)
	go n.work(ctx)
	return n, nil
}

func (n *neighbour) work(ctx context.Context) {
	defer close(n.ended)
	for ctx.Err() == nil && n.wrong == "" {
		text := "task " + strconv.Itoa(n.runs)
		o, err := submit(context.WithoutCancel(ctx), n.child, sandbox.Request{Args: []string{text}})
		switch {
		case err != nil:
			n.wrong = err.Error()
		case o.State != tasks.StateDone || string(o.Stdout) != text+"\n":
			n.wrong = fmt.Sprintf("run %d ended as %s with %q", n.runs, o.State, o.Stdout)
		}
		n.runs++
	}
}

// end stops the neighbour and says how it fared.
func (n *neighbour) end() Probe {
	n.stop()
	<-n.ended
	n.child.Close()
	os.RemoveAll(n.dir)
	p := Probe{Name: "harm to another task beside these", Refused: n.wrong == "", How: fmt.Sprintf("it ran %d times, all answers right", n.runs)}
	if n.wrong != "" {
		p.How = n.wrong
	}
	return p
}
