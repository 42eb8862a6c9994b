package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
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
	cache      *Cache
	requests   chan func()
	ended      chan struct{}

	cgroup   *cgroupRoot // nil: none, for the reason in noCgroup
	noCgroup string

	mu       sync.Mutex
	isolated *isolationFound // nil: not tried yet
}

// Options say how a Launcher starts children.
type Options struct {
	// Executable is the binary whose main hands ChildCommand to ChildMain; empty
	// means the running one.
	Executable string
	// Cache has compiled code; nil: each child compiles its module itself.
	Cache *Cache
	// Cgroup is a cgroup v2 that this process may divide: see FindCgroup. Its
	// processes move to one below. Empty: children share that of this process.
	Cgroup string
	// NoCgroup says why Cgroup is empty, for the layer's reason.
	NoCgroup string
}

// OpenLauncher returns a Launcher. The caller closes it, after its children.
func OpenLauncher(o Options) (*Launcher, error) {
	binary := o.Executable
	if binary == "" {
		var err error
		if binary, err = self(); err != nil {
			return nil, fmt.Errorf("find the running program: %w", err)
		}
	}
	l := &Launcher{executable: binary, cache: o.Cache, requests: make(chan func()), ended: make(chan struct{}), noCgroup: o.NoCgroup}
	switch {
	case o.Cgroup != "":
		root, err := openCgroup(o.Cgroup)
		if err != nil {
			l.noCgroup = err.Error()
		} else {
			l.cgroup = root
		}
	case l.noCgroup == "":
		l.noCgroup = "not asked for"
	}
	go l.run()
	return l, nil
}

// run starts processes on one thread that lives as long as the Launcher: Linux
// sends the parent-death signal when the thread that forked ends, not the
// process. The thread is never unlocked, so it ends with run. The main thread does
// not do, for Go never ends it: if this is it, it waits for another.
func (l *Launcher) run() {
	runtime.LockOSThread()
	if onMainThread() {
		go l.run()
		<-l.ended
		runtime.UnlockOSThread()
		return
	}
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

// Start starts a child, has it lock itself down and compile the module, or load
// its compiled code from the cache, and returns it ready for requests. The caller
// closes it. The error is a *ModuleError, wraps tasks.ErrSandbox when a required
// layer is missing, or is a failure of this machine.
func (l *Launcher) Start(ctx context.Context, cfg Config) (*Child, error) {
	c, err := l.newChild(cfg)
	if err != nil {
		return nil, err
	}
	s := setup{Duty: dutyRun}
	if s.Code, err = l.stageCode(ctx, cfg); err != nil {
		c.discard()
		return nil, err
	}
	if err := l.enter(ctx, c, cfg, s); err != nil {
		return nil, err
	}
	c.serve()
	return c, nil
}

// stageCode puts the module's compiled code into the staging directory; false
// when there is none and the child has to compile.
func (l *Launcher) stageCode(ctx context.Context, cfg Config) (bool, error) {
	if l.cache == nil {
		return false, nil
	}
	key := keyOfCode(cfg.Module)
	for range maxCompilations {
		if l.cache.stage(key, cfg.Dir) {
			return true, nil
		}
		filled, err := l.cache.fill(ctx, key, func(dir string) error { return l.compileOnly(ctx, cfg, dir) })
		if _, fault := errors.AsType[*ModuleError](err); fault || ctx.Err() != nil || errors.Is(err, tasks.ErrSandbox) {
			return false, err
		}
		if err != nil {
			l.cache.logger.Warn("compiled code cannot be kept; each sandbox compiles", "err", err)
		}
		if !filled {
			return false, nil
		}
	}
	return false, nil
}

// maxCompilations bounds how often a start waits for code that is gone again
// when it looks.
const maxCompilations = 4

// compileOnly has a child leave the module's compiled code in dir.
func (l *Launcher) compileOnly(ctx context.Context, cfg Config, dir string) error {
	cfg.Dir = dir
	c, err := l.newChild(cfg)
	if err != nil {
		return err
	}
	if err := l.enter(ctx, c, cfg, setup{Duty: dutyCompile}); err != nil {
		return err
	}
	c.Close()
	return nil
}

// enter starts the process of c and waits until it is ready. It closes c when it
// fails.
func (l *Launcher) enter(ctx context.Context, c *Child, cfg Config, s setup) error {
	s.Limits, s.ModuleBytes = cfg.Limits, int64(len(cfg.Module))
	if err := l.begin(ctx, c, s); err != nil {
		return err
	}
	if err := refuse(c.layers); err != nil {
		c.Close()
		return err
	}
	if err := c.compile(ctx, cfg, s.Duty); err != nil {
		c.Close()
		return err
	}
	return nil
}

// Layers starts a child that only locks itself down and returns what it
// reports, required layers that are missing included. The error says that it
// could not be asked. The staging directory dir is as in Config.
func (l *Launcher) Layers(ctx context.Context, dir string) ([]Layer, error) {
	cfg := Config{Dir: dir, Limits: tasks.DefaultLimits()}
	c, err := l.newChild(cfg)
	if err != nil {
		return nil, err
	}
	if err := l.begin(ctx, c, setup{Duty: dutyReport, Limits: cfg.Limits}); err != nil {
		return nil, err
	}
	c.Close()
	return c.layers, nil
}

// Refusal returns nil when layers has every required layer, else an error that
// wraps tasks.ErrSandbox and says what is missing.
func Refusal(layers []Layer) error { return refuse(layers) }

// begin starts the process of c and takes its hello. It closes c when it fails.
// The first child that cannot live with namespaces or mounts of its own starts
// again with less.
func (l *Launcher) begin(ctx context.Context, c *Child, s setup) error {
	found, known := l.isolation()
	if c.most != nil {
		found, known = *c.most, true
	}
	err := l.attempt(ctx, c, s, found.most)
	for err != nil && !known && found.most > isolationNone && ctx.Err() == nil && !c.timedOut() {
		c.reset()
		found.refused(c.refusal(err))
		c.stderr.reset()
		err = l.attempt(ctx, c, s, found.most)
	}
	switch {
	case err == nil:
		if !known {
			l.isolationIs(found)
		}
		for layer, why := range found.why {
			c.explain(layer, why)
		}
		return nil
	case c.started():
		c.Close()
		return c.startError(ctx, "start", err)
	}
	c.discard()
	return fmt.Errorf("start sandbox process: %w", err)
}

// attempt starts the process and takes its hello.
func (l *Launcher) attempt(ctx context.Context, c *Child, s setup, most isolation) error {
	args := []string{ChildCommand}
	if most == isolationFull {
		args = append(args, mountsStage)
	}
	c.cmd = exec.Command(l.executable, args...)
	c.cmd.Env = []string{}
	c.cmd.Dir = c.dir
	setProcess(c.cmd, most)
	if err := c.connect(l.start); err != nil {
		return err
	}
	inCgroup := l.confine(c, s)
	s.Namespaces = namespacesOf()
	release := c.killAfter(ctx, startWall)
	body, err := c.exchange(frameSetup, s.append, frameHello, maxHelloBytes)
	release()
	if err != nil {
		return err
	}
	h, err := parseHello(body)
	c.layers = append(h.Layers, inCgroup)
	return err
}

// confine puts the process of c, which waits for its setup, into a cgroup of its
// own.
func (l *Launcher) confine(c *Child, s setup) Layer {
	if l.cgroup == nil {
		return Layer{Name: LayerCgroup, Why: l.noCgroup}
	}
	dir, err := l.cgroup.child(c.cmd.Process.Pid, s.Duty, s.Limits)
	c.cgroup = dir
	return layerOf(LayerCgroup, false, err)
}

// newChild makes the staging directory and what belongs to a child, and starts
// nothing: see begin and discard.
func (l *Launcher) newChild(cfg Config) (*Child, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.Module) > tasks.MaxModuleBytes {
		return nil, &ModuleError{Why: fmt.Sprintf("module of %d bytes, at most %d", len(cfg.Module), tasks.MaxModuleBytes)}
	}
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if err := os.Mkdir(filepath.Join(cfg.Dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("staging directory: %w", err)
		}
	}
	out, err := os.OpenRoot(filepath.Join(cfg.Dir, outputDir))
	if err != nil {
		return nil, fmt.Errorf("staging directory: %w", err)
	}
	return &Child{limits: cfg.Limits, grace: abandonGrace, dir: cfg.Dir, outputs: out, ended: make(chan struct{})}, nil
}

// compile sends the module and waits until it is ready.
func (c *Child) compile(ctx context.Context, cfg Config, d duty) error {
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
	if d == dutyCompile {
		return nil
	}
	c.layers = append(c.layers, Layer{Name: LayerNoExec, Active: sealRequired, Required: sealRequired})
	if !sealRequired {
		c.explain(LayerNoExec, "not available on this system")
	}
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
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), c.complaint() != "":
		err = errors.New(c.lastWords(err))
	}
	return fmt.Errorf("sandbox process, %s: %w", what, err)
}
