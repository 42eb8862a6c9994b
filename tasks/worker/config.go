package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// Config says how a worker works. Zero fields mean what DefaultConfig has.
type Config struct {
	// Executable is the binary whose main hands sandbox.ChildCommand to
	// sandbox.ChildMain; empty means the running one.
	Executable string
	// Dir is the worker's own directory; it is made if needed.
	Dir string
	// Slots is how many tasks run at once.
	Slots int
	// Queue is how many accepted tasks may wait or run, all slots together.
	Queue int
	// Limits are the most that a task may ask for; zero fields mean
	// tasks.CeilingLimits.
	Limits tasks.Limits
	// StoreBytes bounds the content store.
	StoreBytes int64
	// CodeBytes bounds the cache of compiled modules; 0: each sandbox compiles.
	CodeBytes int64
	// Cgroup is CgroupAuto, or a directory for sandbox.Options; empty means none.
	Cgroup string
	// Native says that the machine's own commands may run, in bubblewrap.
	Native bool
	// CompileWall is how long a module may compile; 0 means
	// sandbox.DefaultCompileWall.
	CompileWall time.Duration
	// Logger gets what an operator acts on; nil discards it.
	Logger *slog.Logger
}

// CgroupAuto uses the cgroup that the system delegated to this process, if any.
const CgroupAuto = "auto"

// sandboxOptions are how c wants sandboxes started.
func (c Config) sandboxOptions(code *sandbox.Cache) sandbox.Options {
	o := sandbox.Options{Executable: c.Executable, Cache: code, Cgroup: c.Cgroup, NoCgroup: "the configuration says so"}
	if c.Cgroup == CgroupAuto {
		var err error
		if o.Cgroup, err = sandbox.FindCgroup(); err != nil {
			o.NoCgroup = err.Error()
		}
	}
	return o
}

// Bounds of a Config.
const (
	MaxSlots   = 1024
	queueSlots = 64 // default of Queue, per slot
)

// DefaultConfig returns the defaults: half the cores, 2 GiB of content.
func DefaultConfig() Config {
	slots := max(1, runtime.NumCPU()/2)
	return Config{Slots: slots, Queue: slots * queueSlots, Limits: tasks.CeilingLimits(), StoreBytes: 2 << 30}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Slots == 0 {
		c.Slots = d.Slots
	}
	if c.Queue == 0 {
		c.Queue = c.Slots * queueSlots
	}
	if c.StoreBytes == 0 {
		c.StoreBytes = d.StoreBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = fillLimits(c.Limits, d.Limits)
	return c
}

func fillLimits(l, d tasks.Limits) tasks.Limits {
	fill := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&l.MemoryBytes, d.MemoryBytes)
	fill((*int64)(&l.Wall), int64(d.Wall))
	fill(&l.StdoutBytes, d.StdoutBytes)
	fill(&l.StderrBytes, d.StderrBytes)
	fill(&l.OutputBytes, d.OutputBytes)
	if l.OutputFiles == 0 {
		l.OutputFiles = d.OutputFiles
	}
	return l
}

// Validate reports every fault of c, joined.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("no directory"))
	}
	if c.Slots < 0 || c.Slots > MaxSlots {
		faults = append(faults, fmt.Errorf("slots: %d, want 1 to %d", c.Slots, MaxSlots))
	}
	if c.Queue < c.Slots {
		faults = append(faults, fmt.Errorf("queue: %d, want at least the %d slots", c.Queue, c.Slots))
	}
	if c.CodeBytes != 0 && c.CodeBytes < sandbox.MinCacheBytes {
		faults = append(faults, fmt.Errorf("compiled code: %d bytes, want none or at least %d", c.CodeBytes, sandbox.MinCacheBytes))
	}
	if c.StoreBytes < 0 || c.CompileWall < 0 {
		faults = append(faults, errors.New("negative bound"))
	}
	if err := c.Limits.Validate(); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}
