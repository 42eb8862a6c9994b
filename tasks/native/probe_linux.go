package native

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"gotong/tasks/sandbox"
)

// probeWall is how long bubblewrap may take to show that it works.
const probeWall = 10 * time.Second

// Runtime runs commands.
type Runtime struct {
	bwrap    string
	launcher *sandbox.Launcher
	filter   []byte
	user     *syscall.Credential // whom commands are; nil: this user
}

// nobody is whom the commands of root's peer are: the kernel keeps root to no number
// of processes.
const nobody = 65534

// Probe tries bubblewrap with all that a command gets, and returns a Runtime that
// starts commands through launcher. The error, which wraps ErrUnavailable, says in
// words what is missing.
func Probe(ctx context.Context, launcher *sandbox.Launcher) (*Runtime, error) {
	filter, err := sandbox.NativeFilter()
	if err != nil {
		return nil, fmt.Errorf("%w: system call filter: %w", ErrUnavailable, err)
	}
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		return nil, fmt.Errorf("%w: bubblewrap is not installed (the program bwrap)", ErrUnavailable)
	}
	r := &Runtime{bwrap: bwrap, launcher: launcher, filter: filter}
	if os.Geteuid() == 0 {
		r.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		removeStale()
	}
	dir, err := r.runDir("")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer os.RemoveAll(dir)
	if err := r.try(ctx, dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r, nil
}

// try runs a command that does nothing, and looks into its /out.
func (r *Runtime) try(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, probeWall)
	defer cancel()
	l := probeLimits
	c, err := r.start(setup{args: []string{"true"}, in: dir, limits: l, stdout: &capture{max: 1, over: func() {}}, stderr: &capture{max: 4096, over: func() {}}})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.kill(causeClosed) })
	defer stop()
	defer c.outputs.Close()
	code, err := c.wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("bubblewrap did not end within %s", probeWall)
	case err != nil:
		return explain(err)
	case code != 0:
		return fmt.Errorf("bubblewrap cannot run a command: exit code %d", code)
	}
	return nil
}

// explain puts what bubblewrap says about namespaces into words.
func explain(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "uid map"), strings.Contains(text, "namespace") && strings.Contains(text, "ermi"),
		strings.Contains(text, "No permissions to creat"):
		return fmt.Errorf("this system lets ordinary users make no user namespaces (%w)", err)
	case strings.Contains(text, "Unknown option"):
		return fmt.Errorf("bubblewrap is older than 0.8 (%w)", err)
	case strings.Contains(text, "mount proc"):
		return fmt.Errorf("this process is in a container that hides parts of /proc (%w)", err)
	}
	return err
}
