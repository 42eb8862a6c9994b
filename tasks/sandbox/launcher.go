package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"gotong/tasks"
)

// Bounds of starting a child.
const (
	// DefaultCompileWall is how long a module may compile when Config does not
	// say it.
	DefaultCompileWall = 2 * time.Minute
	// startWall is how long a child may take to lock itself down.
	startWall = 30 * time.Second
)

// Launcher starts children. They are its process's children in the sense of
// the parent-death signal as long as it is open.
type Launcher struct {
	executable string
	requests   chan func()
	ended      chan struct{}
}

// OpenLauncher returns a Launcher for the given binary, whose main hands
// ChildCommand to ChildMain; empty means the running binary. The caller closes
// it, after its children.
func OpenLauncher(binary string) (*Launcher, error) {
	if binary == "" {
		var err error
		if binary, err = self(); err != nil {
			return nil, fmt.Errorf("find the running program: %w", err)
		}
	}
	l := &Launcher{executable: binary, requests: make(chan func()), ended: make(chan struct{})}
	go l.run()
	return l, nil
}

// run starts processes on one thread that lives as long as the Launcher: Linux
// sends the parent-death signal when the thread that forked ends, not the
// process. The thread is never unlocked, so it ends with run.
func (l *Launcher) run() {
	runtime.LockOSThread()
	defer close(l.ended)
	for start := range l.requests {
		start()
	}
}

// Close ends the thread; on Linux children that still live are killed.
func (l *Launcher) Close() error {
	close(l.requests)
	<-l.ended
	return nil
}

func (l *Launcher) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	l.requests <- func() { result <- cmd.Start() }
	return <-result
}

// Config says what a child runs.
type Config struct {
	// Dir is the child's staging directory. It must exist, empty, and be used
	// for nothing else; the caller removes it after Child.Close.
	Dir string
	// Module is the program, a WASI preview 1 command.
	Module []byte
	// Limits hold for every request. They must be valid.
	Limits tasks.Limits
	// CompileWall is how long the module may compile; 0 means
	// DefaultCompileWall.
	CompileWall time.Duration
}

// ModuleError says that the module is at fault: every request would end alike.
type ModuleError struct {
	Limit tasks.Limit // LimitCompile, or LimitNone
	Why   string
}

// Error returns the reason.
func (e *ModuleError) Error() string { return e.Why }

// Start starts a child, has it lock itself down and compile the module, and
// returns it ready for requests. The caller closes it. The error is a
// *ModuleError, wraps tasks.ErrSandbox when a required layer is missing, or is
// a failure of this machine.
func (l *Launcher) Start(ctx context.Context, cfg Config) (*Child, error) {
	c, err := l.spawn(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.compile(ctx, cfg); err != nil {
		c.Close()
		return nil, err
	}
	c.serve()
	return c, nil
}

// Layers starts a child that only locks itself down and returns what it
// reports, required layers that are missing included. The error says that it
// could not be asked. The staging directory dir is as in Config.
func (l *Launcher) Layers(ctx context.Context, dir string) ([]Layer, error) {
	c, err := l.spawn(ctx, Config{Dir: dir, Limits: tasks.DefaultLimits()})
	if c == nil {
		return nil, err
	}
	c.Close()
	return c.layers, nil
}

// Refusal returns nil when layers has every required layer, else an error that
// wraps tasks.ErrSandbox and says what is missing.
func Refusal(layers []Layer) error { return refuse(layers) }

// spawn starts the process and takes its hello. When only a required layer is
// missing it returns the child with the error.
func (l *Launcher) spawn(ctx context.Context, cfg Config) (*Child, error) {
	c, err := l.newChild(cfg)
	if err != nil {
		return nil, err
	}
	release := c.killAfter(ctx, startWall)
	first := setup{Dir: cfg.Dir, Limits: cfg.Limits, ModuleBytes: int64(len(cfg.Module))}
	body, err := c.exchange(frameSetup, first.append, frameHello, maxHelloBytes)
	release()
	var h hello
	if err == nil {
		h, err = parseHello(body)
	}
	if err != nil {
		c.Close()
		return nil, c.startError(ctx, "start", err)
	}
	c.layers = h.Layers
	if err := refuse(h.Layers); err != nil {
		if len(cfg.Module) > 0 {
			c.Close()
			return nil, err
		}
		return c, err
	}
	return c, nil
}

func (l *Launcher) newChild(cfg Config) (*Child, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.Module) > tasks.MaxModuleBytes {
		return nil, &ModuleError{Why: fmt.Sprintf("module of %d bytes, at most %d", len(cfg.Module), tasks.MaxModuleBytes)}
	}
	for _, name := range []string{inputDir, outputDir} {
		if err := os.Mkdir(filepath.Join(cfg.Dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("staging directory: %w", err)
		}
	}
	out, err := os.OpenRoot(filepath.Join(cfg.Dir, outputDir))
	if err != nil {
		return nil, fmt.Errorf("staging directory: %w", err)
	}
	cmd := exec.Command(l.executable, ChildCommand)
	cmd.Env = []string{}
	cmd.Dir = cfg.Dir
	setProcess(cmd)
	c := &Child{cmd: cmd, limits: cfg.Limits, dir: cfg.Dir, outputs: out, ended: make(chan struct{})}
	if err := c.connect(l.start); err != nil {
		out.Close()
		return nil, fmt.Errorf("start sandbox process: %w", err)
	}
	return c, nil
}

// compile sends the module and waits until it is ready.
func (c *Child) compile(ctx context.Context, cfg Config) error {
	wall := cfg.CompileWall
	if wall == 0 {
		wall = DefaultCompileWall
	}
	release := c.killAfter(ctx, wall)
	body, err := c.exchange(frameModule, func(b []byte) []byte { return append(b, cfg.Module...) }, frameReady, maxReadyBytes)
	release()
	var r ready
	if err == nil {
		r, err = parseReady(body)
	}
	switch {
	case err != nil:
		return c.compileError(ctx, wall, err)
	case r.Fault != "":
		return &ModuleError{Why: r.Fault}
	case r.Broken != "":
		return fmt.Errorf("%w: %s", tasks.ErrSandbox, r.Broken)
	}
	c.engine = r.Engine
	c.layers = append(c.layers, Layer{Name: LayerNoExec, Active: runtime.GOOS == "linux", Required: runtime.GOOS == "linux"})
	return nil
}

// compileError explains why the child ended while it compiled.
func (c *Child) compileError(ctx context.Context, wall time.Duration, err error) error {
	c.Close()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.timedOut():
		return &ModuleError{tasks.LimitCompile, fmt.Sprintf("module did not compile within %s", wall)}
	case c.outOfMemory():
		return &ModuleError{tasks.LimitCompile, "module needs too much memory to compile"}
	}
	return c.startError(ctx, "compile", err)
}

// startError explains why the child ended before it was ready.
func (c *Child) startError(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.timedOut():
		err = errors.New("took too long")
	case c.complaint() != "":
		err = errors.New(c.complaint())
	}
	return fmt.Errorf("sandbox process, %s: %w", what, err)
}
