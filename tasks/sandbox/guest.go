package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"gotong/tasks"
)

// programName is argument zero of every guest.
const programName = "program"

// startFunction is what a WASI command exports.
const startFunction = "_start"

// errModule means that the module itself is at fault.
var errModule = errors.New("module cannot run")

// guest is one compiled module and everything its runs share. Runs follow each
// other; nothing of one is visible to the next.
type guest struct {
	ctx      context.Context
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	config   wazero.ModuleConfig

	memory allocator
	clock  clock
	random random
	stdin  stdin
	stdout stdout
	stderr capture
	store  *fileStore
	tree   *tree
	args   []string
}

// engineVersion is the version of the engine in go.mod; a test compares them.
const engineVersion = "v1.12.0"

// semantics counts the changes of what a guest can observe of the sandbox: its
// clock, randomness, files, limits, NaNs.
const semantics = "2"

// Engine says what runs a guest; results are comparable within one engine.
// The processor is not part of it: guests compute the same on all.
const Engine = "wazero-" + engineVersion + "/" + semantics

// compile makes a module ready to run; what the engine compiled before may be in
// cache, which may be nil. An error that is errModule is the module's fault; any
// other is ours.
func compile(module []byte, limits tasks.Limits, store *fileStore, cache wazero.CompilationCache) (*guest, error) {
	g := &guest{
		store:  store,
		stdin:  stdin{store: store},
		memory: allocator{limit: uint64(limits.MemoryBytes) / tasks.PageBytes * tasks.PageBytes},
		stdout: stdout{capture: capture{stream: "standard output", max: limits.StdoutBytes}, store: store},
		stderr: capture{stream: "standard error", max: limits.StderrBytes},
	}
	g.ctx = experimental.WithMemoryAllocator(context.Background(), &g.memory)
	g.ctx = experimental.WithCompilationWorkers(g.ctx, childProcessors)
	g.tree = newTree(store, &g.clock)
	// The compiler by name: the plain constructor falls back to an interpreter.
	config := wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	g.runtime = wazero.NewRuntimeWithConfig(g.ctx, config)
	if _, err := wasi_snapshot_preview1.Instantiate(g.ctx, g.runtime); err != nil {
		return nil, err
	}
	module, err := rewrite(module)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errModule, err)
	}
	if g.compiled, err = g.runtime.CompileModule(g.ctx, module); err != nil {
		if isFileError(err) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s", errModule, firstLine(err.Error()))
	}
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errModule, err)
	}
	g.config = g.clock.configure(wazero.NewModuleConfig().
		WithName("").
		WithStartFunctions(startFunction).
		WithStdin(&g.stdin).
		WithStdout(&g.stdout).
		WithStderr(&g.stderr).
		WithRandSource(&g.random).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(g.tree, "/")))
	return g, nil
}

// isFileError tells a cache that cannot be read or written from a faulty module.
func isFileError(err error) bool {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return path || link
}

// check refuses a compiled module that could never run, once for all tasks.
func (g *guest) check() error {
	if _, ok := g.compiled.ExportedFunctions()[startFunction]; !ok {
		return fmt.Errorf("it exports no %s function, so it is no WASI command", startFunction)
	}
	host := g.runtime.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions()
	for _, def := range g.compiled.ImportedFunctions() {
		module, name, _ := def.Import()
		if _, ok := host[name]; !ok || module != wasi_snapshot_preview1.ModuleName {
			return fmt.Errorf("it imports %q from %q, which a task cannot have", name, module)
		}
	}
	for _, memory := range g.compiled.ExportedMemories() {
		if need := uint64(memory.Min()) * tasks.PageBytes; need > g.memory.limit {
			return fmt.Errorf("it needs %d bytes of memory from its start, more than %d", need, g.memory.limit)
		}
	}
	return nil
}

// run runs the module once. The result points into buffers that the next run
// overwrites.
func (g *guest) run(t taskMessage) resultMessage {
	g.memory.denied = false
	g.clock = clock{}
	g.random.reset(t.Seed)
	g.stdout.reset()
	g.stderr.reset()
	g.store.reset()
	g.tree.reset(t.Inputs)
	g.stdin.reset(t.Stdin, t.StdinSize)
	g.args = append(append(g.args[:0], programName), t.Args...)
	start := time.Now()
	r := g.classify(g.call())
	r.Elapsed = time.Since(start)
	g.stdin.close()
	var err error
	if r.Stdout, r.LargeStdout, err = g.stdout.take(r.ExitCode >= 0); err != nil {
		r.State, r.Limit, r.ExitCode, r.Why = tasks.StateLost, tasks.LimitNone, tasks.NoExitCode, "its standard output could not be kept: "+withoutPath(err)
	}
	r.Stderr = g.stderr.buf
	if r.ExitCode >= 0 {
		r.Files = g.tree.files()
	} else {
		g.tree.discard()
	}
	return r
}

// withoutPath returns an error of a file without the file's path.
func withoutPath(err error) string {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return cut(err.Error(), tasks.MaxWhyBytes/2)
}

// call returns how the run ended: nil, *sys.ExitError, *stopped in some chain,
// or a trap.
func (g *guest) call() (err error) {
	defer func() {
		// A limit met while the engine sets the module up, outside of its own
		// recovery. Anything else is a fault of ours and ends the child.
		switch r := recover().(type) {
		case nil:
		case *stopped:
			err = r
		default:
			panic(r)
		}
	}()
	mod, err := g.runtime.InstantiateModule(g.ctx, g.compiled, g.config.WithArgs(g.args...))
	if mod != nil {
		mod.Close(g.ctx)
	}
	return err
}

func (g *guest) classify(err error) resultMessage {
	if err == nil {
		return resultMessage{State: tasks.StateDone}
	}
	if s, ok := errors.AsType[*stopped](err); ok {
		return resultMessage{State: tasks.StateLimit, Limit: s.limit, ExitCode: tasks.NoExitCode, Why: s.why}
	}
	r := resultMessage{State: tasks.StateFailed, ExitCode: tasks.NoExitCode}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		r.ExitCode = int64(exit.ExitCode())
		if r.ExitCode == 0 {
			return resultMessage{State: tasks.StateDone}
		}
		r.Why = fmt.Sprintf("exit code %d", r.ExitCode)
	} else {
		r.Why = trapText(err)
		if r.Why == trappedStack {
			// How deep calls may go depends on the size of the frames, which
			// depends on the processor.
			r.State, r.Limit = tasks.StateLimit, tasks.LimitMemory
			r.Why = "its calls nest too deep: " + r.Why
		}
	}
	if g.memory.denied {
		// It asked for more than it may have, was refused, and did not cope.
		r.State, r.Limit = tasks.StateLimit, tasks.LimitMemory
		r.Why = fmt.Sprintf("asked for more than %d bytes of memory, then: %s", g.memory.limit, r.Why)
	}
	r.Why = cut(r.Why, tasks.MaxWhyBytes)
	return r
}

// trappedStack is the trapText of the engine's end of the stack.
const trappedStack = "trapped: stack overflow"

// trapText shortens the engine's error to what a person can use.
func trapText(err error) string {
	text := firstLine(err.Error())
	if _, after, ok := strings.Cut(text, "failed: "); ok && strings.HasPrefix(text, "module[") {
		text = after
	}
	return "trapped: " + strings.TrimPrefix(text, "wasm error: ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// cut shortens s to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
