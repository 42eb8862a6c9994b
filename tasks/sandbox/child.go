package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"

	"github.com/tetratelabs/wazero"
)

// ChildCommand is the hidden command of the binary whose main calls ChildMain.
const ChildCommand = "sandbox-child"

// innerStage is the argument after ChildCommand of the second stage.
const innerStage = "inner"

// mountsStage is the argument after ChildCommand of a first stage that must get
// mounts of its own.
const mountsStage = "mounts"

// complaintStage is before the reason for which the first stage failed.
const complaintStage = "sandbox: first stage: "

// Exit codes of a child; a parent reads them from the wait status.
const (
	exitOK       = 0
	exitProtocol = 70 // the conversation broke
	exitStage    = 71 // the first stage failed
)

// Bounds of the child's own process.
const (
	childProcessors  = 2         // one for the guest, one for the conversation; both to compile
	childThreads     = 64        // the Go runtime dies above this
	pipeBufferBytes  = 64 << 10  // of a pipe, as Linux makes them
	collectBytes     = 64 << 20  // garbage after which a collection runs between two tasks
	compileHeapBytes = 512 << 20 // heap above which compilation collects all the time
	heapReserveBytes = 256 << 20 // heap above which a collection runs even during a task
	collectEvery     = 64        // tasks between two looks at the heap
)

// ChildMain is the whole life of a sandbox child. The binary calls it when its
// first argument is ChildCommand, with the arguments after that, before it does
// anything else: what is opened or started before stays with the guest.
// The result is the exit code of the process.
func ChildMain(args []string, stdin io.Reader, stdout io.Writer) int {
	if len(args) == 0 || args[0] != innerStage {
		if err := firstStage(slices.Contains(args, mountsStage), ChildCommand, innerStage); err != nil {
			fmt.Fprintf(os.Stderr, "%s%v\n", complaintStage, err)
			return exitStage
		}
	}
	c := &child{frames: frameReader{r: bufio.NewReaderSize(stdin, pipeBufferBytes)}, out: stdout}
	if err := c.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return exitProtocol
	}
	return exitOK
}

type child struct {
	frames frameReader
	out    io.Writer
	setup  setup
	dir    string // staging directory with in/, out/ and code/
}

// serve talks to the parent until it closes the pipe.
func (c *child) serve() error {
	runtime.GOMAXPROCS(childProcessors)
	debug.SetMaxThreads(childThreads)
	debug.SetMemoryLimit(compileHeapBytes)
	body, err := c.frames.next(frameSetup, maxSetupBytes)
	if err != nil {
		return err
	}
	if c.setup, err = parseSetup(body); err != nil {
		return err
	}
	var targets Targets
	if c.setup.Duty == dutyProbe {
		if err := json.Unmarshal(c.setup.Probe, &targets); err != nil {
			return err
		}
	}
	if c.dir, err = os.Getwd(); err != nil {
		return err
	}
	store, err := openStore(c.dir, c.setup.Limits)
	if err != nil {
		return err
	}
	layers, seal := lockDown(c.dir, c.setup, targets.Without)
	if c.setup.Duty == dutyReport {
		layers = append(layers, layerOf(LayerNoExec, sealRequired, seal()))
	}
	if err := c.send(frameHello, hello{layers}.append); err != nil {
		return err
	}
	switch {
	case c.setup.Duty == dutyProbe:
		return c.probe(targets, seal)
	case c.setup.Duty == dutyReport || refuse(layers) != nil:
		return nil
	}
	g, err := c.prepare(store, seal)
	if g == nil || c.setup.Duty == dutyCompile {
		return err
	}
	return c.loop(g)
}

func (c *child) send(kind frameKind, body func([]byte) []byte) error {
	_, err := c.out.Write(appendFrame(nil, kind, body))
	return err
}

// prepare compiles the module, seals the process, and reports. It returns no
// guest when the module cannot run.
func (c *child) prepare(store *fileStore, seal func() error) (*guest, error) {
	module, err := c.frames.next(frameModule, int(c.setup.ModuleBytes))
	if err != nil {
		return nil, err
	}
	g, err := c.compile(module, store)
	r := ready{Engine: Engine}
	switch {
	case errors.Is(err, errModule):
		r.Fault = cut(err.Error(), maxReadyBytes/4)
	case err != nil:
		r.Broken = cut(err.Error(), maxReadyBytes/4)
	case c.setup.Duty == dutyCompile: // nothing of the module ever runs here
	default:
		if err := seal(); err != nil && sealRequired {
			g, r.Broken = nil, cut(err.Error(), maxReadyBytes/4)
		}
	}
	return g, c.send(frameReady, r.append)
}

// compile makes the module ready, from staged code if there is some.
func (c *child) compile(module []byte, store *fileStore) (*guest, error) {
	if c.setup.Duty != dutyCompile && !c.setup.Code {
		return compile(module, c.setup.Limits, store, nil)
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(c.dir, codeDir))
	if err != nil && c.setup.Duty == dutyCompile {
		return nil, err
	}
	if err == nil {
		g, err := compile(module, c.setup.Limits, store, cache)
		if err == nil || c.setup.Duty == dutyCompile {
			return g, err
		}
	}
	return compile(module, c.setup.Limits, store, nil) // code of no use
}

// loop runs tasks in the order in which they come. Reading and writing are
// goroutines of their own: a guest in an endless loop must neither keep an
// earlier result back nor hide the end of the parent.
func (c *child) loop(g *guest) error {
	queue := make(chan taskMessage, Window)
	results := newBatchWriter(c.out)
	go results.run()
	go c.receive(queue)
	collector := newCollector()
	for t := range queue {
		if err := results.add(frameResult, g.run(t).append); err != nil {
			return err
		}
		collector.between()
	}
	return nil
}

// receive reads tasks. When the parent closes the pipe or breaks the protocol
// the child ends at once, whatever its guest does.
func (c *child) receive(queue chan<- taskMessage) {
	for {
		body, err := c.frames.next(frameTask, maxTaskBytes)
		if errors.Is(err, io.EOF) {
			os.Exit(exitOK)
		}
		var t taskMessage
		if err == nil {
			t, err = parseTask(body)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "sandbox:", err)
			os.Exit(exitProtocol)
		}
		queue <- t
	}
}

// collector runs the garbage collector between tasks. During a task it must
// not: the collector waits until every goroutine stops, compiled guest code
// does not stop, and so all others would wait for the guest.
type collector struct {
	sample []metrics.Sample
	last   uint64
	tasks  int
}

func newCollector() *collector {
	runtime.GC()
	debug.SetGCPercent(-1)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	debug.SetMemoryLimit(int64(stats.Sys-stats.HeapReleased) + heapReserveBytes)
	return &collector{sample: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}, last: stats.TotalAlloc}
}

func (c *collector) between() {
	if c.tasks++; c.tasks%collectEvery != 0 {
		return
	}
	metrics.Read(c.sample)
	if allocated := c.sample[0].Value.Uint64(); allocated-c.last > collectBytes {
		runtime.GC()
		c.last = allocated
	}
}
