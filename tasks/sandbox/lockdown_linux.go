package sandbox

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gotong/tasks"
)

// Resource limits of a child.
const (
	limitOpenFiles = 256
	// limitCompileData bounds writable private memory while the module is
	// compiled, the Go runtime's own (about 100 MiB as the kernel counts)
	// included.
	limitCompileData = 1 << 30
	// limitRunData is what a child may add to what it has after compilation,
	// beside the guest's memory: Go's heap, tables, stacks of deep recursion.
	limitRunData = 384 << 20
)

// sealRequired says that no guest runs without LayerNoExec.
const sealRequired = true

// executable is the running binary, even if its file was replaced since.
const executable = "/proc/self/exe"

// firstStage gives up what belongs to a thread or is inherited over exec, then
// executes the binary again with the given arguments, so that every thread of
// the second stage has it. It returns only on failure. What could not be given up is
// seen by the second stage, which looks at the facts; mounts says that it must get
// mounts of its own.
func firstStage(mounts bool, args ...string) error {
	runtime.LockOSThread()
	if mounts {
		if err := ownMounts(); err != nil {
			return err
		}
	}
	unix.Setpriority(unix.PRIO_PROCESS, 0, niceLeast)
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: niceLeast}, 0)
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle<<ioprioClassShift)
	os.WriteFile("/proc/self/oom_score_adj", []byte(oomFirst), 0)
	setRlimits()
	dropCapabilities()
	// A descriptor that whoever started the peer left open must not reach a
	// guest.
	if err := unix.CloseRange(firstDescriptor, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	err := syscall.Exec(executable, append([]string{"gotong"}, args...), []string{})
	if mounts && errors.Is(err, unix.ENOENT) {
		return errors.New("this build of gotong needs shared libraries, which a root directory of its own lacks (" + StaticBuild + ")")
	}
	return err
}

// Values that golang.org/x/sys/unix does not name, and descriptors after the
// three standard ones.
const (
	niceLeast        = 19
	oomFirst         = "1000" // when memory runs out, the kernel takes guests first
	firstDescriptor  = 3
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3
	ioprioClassShift = 13
)

// setRlimits sets what does not depend on the task. The number of processes and
// threads is limited only where the kernel counts those of the child alone, else
// it would count those of the whole user; seccomp lets it make threads only.
func setRlimits() {
	limits := map[int]uint64{
		unix.RLIMIT_CORE:     0,
		unix.RLIMIT_NOFILE:   limitOpenFiles,
		unix.RLIMIT_MEMLOCK:  0,
		unix.RLIMIT_MSGQUEUE: 0,
		unix.RLIMIT_NICE:     0,
		unix.RLIMIT_RTPRIO:   0,
	}
	if ownProcesses() && countsPerNamespace() {
		limits[unix.RLIMIT_NPROC] = 2 * childThreads
	}
	for resource, most := range limits {
		// Through syscall: it remembers that the limit of open files is ours
		// and does not restore the inherited one before exec.
		syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most})
	}
}

// dropCapabilities empties the bounding set, so that the exec that follows
// leaves root without capabilities; others have none.
func dropCapabilities() {
	unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
}

// lockDown gives up everything else and reports all layers but LayerNoExec.
// That one is left to seal, to be called after compilation. dir is the staging
// directory as this process sees it. The layers in without
// are left out; only a child that probes leaves out any.
func lockDown(dir string, s setup, without []string) (layers []Layer, seal func() error) {
	// Opened before the file system goes away.
	statm, statmErr := os.Open("/proc/self/statm")
	apply := func(name string, required bool, layer func() error) {
		if slices.Contains(without, name) {
			layers = append(layers, Layer{Name: name, Required: required, Why: leftOut})
			return
		}
		layers = append(layers, layerOf(name, required, layer()))
	}
	apply(LayerProcess, true, checkGroup)
	apply(LayerParent, true, dieWithParent)
	apply(LayerNamespaces, false, func() error { return checkNamespaces(s.Namespaces, 0, mountNames) })
	apply(LayerMounts, false, func() error { return checkNamespaces(s.Namespaces, mountNames, len(namespaceNames)) })
	apply(LayerIdle, false, checkIdle)
	apply(LayerRlimits, true, func() error { return errors.Join(statmErr, limitMemoryAndFiles(s)) })
	apply(LayerPrivileges, true, checkPrivileges)
	apply(LayerDump, true, func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) })
	apply(LayerLandlock, true, func() error { return restrictPaths(dir, s.Duty) })
	apply(LayerScope, false, checkScope)
	apply(LayerSeccomp, true, func() error { return loadFilter(runtimeFilter(s.Duty)) })
	return layers, func() error { return forbidNewCode(statm, s.Limits) }
}

// forbidNewCode is the last step: memory is limited to what the module turned
// out to need, and no more machine code can be made.
func forbidNewCode(statm *os.File, limits tasks.Limits) error {
	used, err := dataInUse(statm)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	data := used + limitRunData + uint64(limits.MemoryBytes)
	if err := setData(data, data); err != nil {
		return err
	}
	if err := loadFilter(noNewCodeFilter()); err != nil {
		return fmt.Errorf("%s: %w", LayerNoExec, err)
	}
	return nil
}

func checkGroup() error {
	if unix.Getpgrp() != os.Getpid() {
		return errors.New("not the leader of a process group")
	}
	return nil
}

// dieWithParent arms the signal again: an exec that changes capabilities
// disarms what the parent armed.
func dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return nil
}

func checkIdle() error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	if attr.Policy != unix.SCHED_IDLE {
		return fmt.Errorf("scheduling policy is %d", attr.Policy)
	}
	return nil
}

func limitMemoryAndFiles(s setup) error {
	var got unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &got); err != nil || got.Max > limitOpenFiles {
		return fmt.Errorf("open files: limit is %d, %v", got.Max, err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &got); err != nil || got.Max > 0 {
		return fmt.Errorf("core dump: limit is %d, %v", got.Max, err)
	}
	size := uint64(max(s.Limits.OutputBytes, s.Limits.StdoutBytes))
	if s.Duty == dutyCompile {
		size = maxCodeBytes
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: size}); err != nil {
		return fmt.Errorf("file size: %w", err)
	}
	return setData(limitCompileData, limitCompileData+limitRunData+uint64(s.Limits.MemoryBytes))
}

// dataInUse returns the bytes that count against the limit on data, and closes
// statm, which is /proc/self/statm.
func dataInUse(statm *os.File) (uint64, error) {
	defer statm.Close()
	line, err := io.ReadAll(io.LimitReader(statm, 256))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(line))
	if len(fields) < 6 {
		return 0, fmt.Errorf("cannot read %q", line)
	}
	pages, err := strconv.ParseUint(fields[5], 10, 64) // data and stack
	return pages * uint64(os.Getpagesize()), err
}

// setData limits writable private memory. Address space is not limited: it is
// reserved for the guest's largest memory.
func setData(soft, hard uint64) error {
	if raceEnabled {
		return nil // the race detector's own memory is far above any limit
	}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: soft, Max: hard}); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

func checkPrivileges() error {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil || v != 1 {
		return fmt.Errorf("not set: %d, %v", v, err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	if data[0].Effective|data[1].Effective|data[0].Permitted|data[1].Permitted != 0 {
		return errors.New("capabilities could not be dropped")
	}
	return nil
}
