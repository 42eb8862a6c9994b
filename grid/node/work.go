package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/remember"
	"gotong/tasks/rules"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// taskDrain is how long running tasks of others may go on when the peer stops;
// they run again elsewhere.
const taskDrain = time.Second

// work is the part of a peer that runs tasks, and that finds peers for its
// user's jobs. It implements scheduler.Pool.
type work struct {
	peer      *Peer
	worker    *worker.Worker
	donor     *donor
	accounts  *accounts
	runner    runner
	contents  *contents.Contents // of jobs, on the grid
	service   *taskrpc.Service
	local     scheduler.Worker
	memory    *remember.Memory // of results; nil: none is kept
	submitDir string           // files of jobs of this peer's user, for as long as they run
}

// openTasks opens the worker. What an earlier process left of jobs is removed.
func (p *Peer) openTasks() error {
	dir := p.home.state().tasks()
	w := &work{peer: p, submitDir: filepath.Join(dir, "submit")}
	if err := os.RemoveAll(w.submitDir); err != nil {
		return fmt.Errorf("files of former runs: %w", err)
	}
	if err := os.MkdirAll(w.submitDir, 0o700); err != nil {
		return fmt.Errorf("directory for runs: %w", err)
	}
	var err error
	if w.accounts, err = openAccounts(p.home.state().work()); err != nil {
		p.logger.Warn("the accounts of work begin anew", "err", err)
	}
	w.worker, err = worker.New(worker.Config{
		Executable: p.options.Executable, Dir: filepath.Join(dir, "worker"), Slots: max(p.cfg().Slots, 1),
		Limits: p.taskLimits(), StoreBytes: int64(p.cfg().Tasks.CacheBytes), CodeBytes: int64(p.cfg().Tasks.CompileCache), Cgroup: p.cgroup(), Native: p.cfg().Donate.runsNative(), Logger: p.logger,
	})
	if err != nil {
		return err
	}
	w.contents = contents.New(p.segments)
	w.runner = runner{w, w.worker, p.taskLimits(), newJobContents(w.worker, w.contents, p.logger)}
	var serves taskrpc.Runner = w.runner
	if p.options.Runner != nil {
		serves = p.options.Runner(serves)
	}
	w.service = taskrpc.NewService(taskrpc.Config{
		Runner: serves, Key: p.node.Private(), Caller: caller, Authorize: p.authorizeJob, Weight: p.weight, Grace: p.cfg().Tasks.OrphanGrace, Logger: p.logger,
	})
	w.local = w.service.Local()
	if w.memory = p.openMemory(dir); w.memory != nil {
		p.onClose(w.memory.Close)
	}
	p.work = w
	return w.openDonor()
}

// cgroup is what the configuration says, as a worker takes it.
func (p *Peer) cgroup() string {
	if p.cfg().Tasks.Cgroup == cgroupOff {
		return ""
	}
	return p.cfg().Tasks.Cgroup
}

// taskLimits is the most that the donor lets a task ask for.
func (p *Peer) taskLimits() tasks.Limits {
	limits := tasks.CeilingLimits()
	limits.MemoryBytes = min(limits.MemoryBytes, int64(p.cfg().Tasks.MaxMemory))
	limits.Wall = min(limits.Wall, p.cfg().Tasks.MaxTimeout)
	return limits
}

// caller says who calls a method of the Tasks service.
func caller(ctx context.Context) (grid.PeerID, error) {
	id, ok := peernet.CallerFrom(ctx)
	if !ok {
		return grid.PeerID{}, grid.ErrNotMember
	}
	return id, nil
}

func (w *work) register(services *peernet.Services) {
	tasksv1.RegisterTasksServer(services, w.service)
}

// run runs the worker until ctx ends and hands unfinished tasks back.
func (w *work) run(ctx context.Context) error {
	if w.peer.cfg().Slots == 0 { // no sandbox is ever started then
		<-ctx.Done()
		return nil
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- w.worker.Run(running) }()
	select {
	case err := <-ended:
		stop()
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(running, taskDrain)
	w.service.Drain(drain, "this peer is stopping")
	cancel()
	stop()
	return <-ended
}

// opened is closed when it is known whether tasks can run here.
func (w *work) opened() <-chan struct{} {
	if w.peer.cfg().Slots == 0 {
		known := make(chan struct{})
		close(known)
		return known
	}
	return w.worker.Opened()
}

// slotsFree is how many tasks could begin now.
func (w *work) slotsFree() int {
	slots, _ := w.runner.Slots()
	return max(0, slots-w.service.Busy())
}

// Candidates implements scheduler.Pool.
func (w *work) Candidates() []scheduler.Candidate {
	var out []scheduler.Candidate
	for _, p := range w.peer.membership.Peers() {
		slots := p.Record.Slots
		if p.ID == w.peer.ID() {
			slots = w.peer.cfg().Slots // when it gives none now, the runner says why
		}
		if p.State == grid.StateAlive && slots > 0 {
			out = append(out, scheduler.Candidate{Peer: p.ID, Site: p.Site()})
		}
	}
	return out
}

// Worker implements scheduler.Pool.
func (w *work) Worker(id grid.PeerID) (scheduler.Worker, error) {
	if id == w.peer.ID() {
		return w.local, nil
	}
	conn, err := w.peer.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	return taskrpc.NewClient(conn, id), nil
}

func workerAllowance(d rules.Decision, hold time.Duration) worker.Allowance {
	return worker.Allowance{Slots: d.Slots, Why: d.Why(), Hold: hold}
}
