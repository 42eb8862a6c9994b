package worker

import (
	"context"
	"fmt"
	"io"

	"gotong/tasks"
	"gotong/tasks/native"
	"gotong/tasks/sandbox"
)

// guest runs the tasks of a slot: a sandbox with a module, or one for commands. See
// sandbox.Child for its methods.
type guest interface {
	Submit(sandbox.Request, func(sandbox.Outcome)) (abandoner, error)
	Hold() bool
	Resume()
	Stop()
	Close()
	Ended() <-chan struct{}
	Engine() string
	InputPath(tasks.ContentID) string
	OpenOutput(sandbox.File) (io.ReadCloser, error)
	DropOutput(sandbox.File) error
}

// abandoner is a run that may become unwanted.
type abandoner interface{ Abandon() }

type moduleGuest struct{ *sandbox.Child }

// Submit implements guest.
func (g moduleGuest) Submit(r sandbox.Request, done func(sandbox.Outcome)) (abandoner, error) {
	return g.Child.Submit(r, done)
}

type nativeGuest struct{ *native.Box }

// Stop implements guest: what a box's commands left does not depend on it.
func (g nativeGuest) Stop() { g.Box.Close() }

// Submit implements guest.
func (g nativeGuest) Submit(r sandbox.Request, done func(sandbox.Outcome)) (abandoner, error) {
	return g.Box.Submit(r, done)
}

// native reports whether the tasks of k are commands: they have no module.
func (k key) native() bool { return k.module.IsZero() }

// startGuest starts what runs tasks of k.
func (w *Worker) startGuest(ctx context.Context, launcher *sandbox.Launcher, k key, dir string) (guest, error) {
	if k.native() {
		box, err := w.native.Open(native.Config{Dir: dir, Limits: k.limits})
		if err != nil {
			return nil, err
		}
		return nativeGuest{box}, nil
	}
	module, err := w.store.readAll(k.module, tasks.MaxModuleBytes)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	child, err := launcher.Start(ctx, sandbox.Config{Dir: dir, Module: module, Limits: k.limits, CompileWall: w.cfg.CompileWall})
	if err != nil {
		return nil, err
	}
	return moduleGuest{child}, nil
}

// openNative finds out whether this machine can run commands, if it should.
func (w *Worker) openNative(ctx context.Context, launcher *sandbox.Launcher) {
	var runtime *native.Runtime
	refusal := fmt.Errorf("%w: it runs no native commands", tasks.ErrUnfit)
	if w.cfg.Native {
		runtime, refusal = native.Probe(ctx, launcher)
	}
	if w.cfg.Native && refusal != nil {
		w.cfg.Logger.Warn("this machine runs no native commands", "err", refusal)
		refusal = fmt.Errorf("%w: %w", tasks.ErrUnfit, refusal)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.native, w.noNative = runtime, refusal
}

// ReadyNative is Ready for native commands.
func (w *Worker) ReadyNative() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refusal != nil {
		return w.refusal
	}
	return w.noNative
}
