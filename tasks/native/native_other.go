//go:build !linux

package native

import (
	"context"
	"fmt"
	"runtime"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// Runtime runs commands; there is none on this system.
type Runtime struct{}

// Probe returns why this machine runs no commands.
func Probe(context.Context, *sandbox.Launcher) (*Runtime, error) {
	return nil, fmt.Errorf("%w: bubblewrap is for Linux, this is %s", ErrUnavailable, runtime.GOOS)
}

type command struct{}

func (*command) hold()      {}
func (*command) resume()    {}
func (*command) kill(cause) {}

// execute is never called: there is no Runtime to open a Box of.
func (b *Box) execute(run *Run) sandbox.Outcome {
	if !b.enter(run, nil) {
		return sandbox.Outcome{NotRun: true}
	}
	defer b.leave()
	return causeNone.outcome(tasks.Limits{})
}
