package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// archiver is one contender of the storage benchmarks.
type archiver interface {
	name() string
	backup(ctx context.Context, source string) error
	// restore brings the newest backup back to target joined with source.
	restore(ctx context.Context, source, target string) error
}

// meter is an archiver that can be watched at work. The error is errNoProc where
// the system does not tell.
type meter interface {
	meter(ctx context.Context) (stop func() (usage, error), err error)
}

// usage is what a work took: CPU seconds on the side of the data and on the side
// of the storage, and the peak of memory on the side of the data.
type usage struct {
	near, far float64
	memory    memory
}

// ourselves is the product as an archiver.
type ourselves struct {
	*cluster
	last backupSummary
}

type backupSummary struct {
	Files       uint64 `json:"files"`
	Bytes       uint64 `json:"bytes"`
	NewBytes    uint64 `json:"new_bytes"`
	StoredBytes uint64 `json:"stored_bytes"`
	Complete    bool   `json:"complete"`
	Redundancy  string `json:"redundancy"`
}

// errIncomplete: a backup went through, but some holders lack their shards, so
// less was done than was to be measured.
var errIncomplete = errors.New("the backup is not complete")

func (*ourselves) name() string { return product }

func (o *ourselves) backup(ctx context.Context, source string) error {
	o.last = backupSummary{}
	if err := o.you.JSON(ctx, &o.last, "backup", "--redundancy", redundancy, source); err != nil {
		return err
	}
	if !o.last.Complete || o.last.Redundancy != redundancy {
		return fmt.Errorf("%w: %+v", errIncomplete, o.last)
	}
	return nil
}

func (o *ourselves) restore(ctx context.Context, _, target string) error {
	return o.you.JSON(ctx, nil, "restore", "latest", "--target", target)
}

// mount shows the backups below dir while cmd runs, the newest at latest.
func (o *ourselves) mount(ctx context.Context, dir string) (cmd *exec.Cmd, latest string) {
	return o.you.Command(ctx, "mount", dir), filepath.Join(dir, "latest")
}

func (o *ourselves) meter(ctx context.Context) (stop func() (usage, error), err error) {
	nearBefore, errNear := cpuTimes(o.you.PID())
	farBefore, errFar := cpuTimes(o.friendPIDs()...)
	if err := errors.Join(errNear, errFar, resetPeak(o.you.PID())); err != nil {
		return nil, err
	}
	peak := watch(ctx, o.you.PID())
	return func() (usage, error) {
		peaks, err := peak()
		near, errNear := cpuTimes(o.you.PID())
		far, errFar := cpuTimes(o.friendPIDs()...)
		return usage{near - nearBefore, far - farBefore, peaks[0]}, errors.Join(err, errNear, errFar)
	}, nil
}

// restic backs up to an rclone that serves its protocol on the loopback
// interface: a program that encrypts and deduplicates to a server, as both are
// installed.
type restic struct {
	dir  string
	url  string
	pid  int // of rclone
	used float64
	peak memory
}

const resticStart = 10 * time.Second // for rclone to listen

// newRestic starts rclone for the time of the benchmark.
func newRestic(b *testing.B) (*restic, error) {
	b.Helper()
	for _, name := range []string{"restic", "rclone"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	r := &restic{dir: tempDir(b), url: "rest:http://" + address + "/"}
	server := exec.Command("rclone", "serve", "restic", "--addr", address, filepath.Join(r.dir, "repository"))
	server.Env = append(os.Environ(), "RCLONE_CONFIG="+filepath.Join(r.dir, "rclone.conf"))
	if err := server.Start(); err != nil {
		return nil, err
	}
	r.pid = server.Process.Pid
	b.Cleanup(func() {
		_ = server.Process.Kill() // it may have ended by itself
		_ = server.Wait()         // killed
	})
	ctx, cancel := context.WithTimeout(b.Context(), resticStart)
	defer cancel()
	if err := listening(ctx, address); err != nil {
		return nil, err
	}
	return r, r.do(ctx, "init")
}

// freeAddress returns an address of the loopback interface that was free.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// listening returns when something listens at address.
func listening(ctx context.Context, address string) error {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (*restic) name() string { return "restic" }

// do runs a restic command.
func (r *restic) do(ctx context.Context, args ...string) error {
	cmd := r.command(ctx, args...)
	said := &tail{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := watch(ctx, cmd.Process.Pid)
	err := cmd.Wait()
	peaks, _ := stop() // at the latest when the process was gone, it could not be watched
	r.peak.anonymous, r.peak.total = max(r.peak.anonymous, peaks[0].anonymous), max(r.peak.total, peaks[0].total)
	r.used += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if err != nil {
		return fmt.Errorf("restic: %w: %s", err, said.text)
	}
	return nil
}

func (r *restic) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "restic", append([]string{"--repo", r.url, "--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=benchmark", "RESTIC_CACHE_DIR="+filepath.Join(r.dir, "cache"))
	return cmd
}

func (r *restic) backup(ctx context.Context, source string) error {
	return r.do(ctx, "backup", source)
}

func (r *restic) restore(ctx context.Context, _, target string) error {
	return r.do(ctx, "restore", "latest", "--target", target)
}

// mount shows the backups below dir while cmd runs, the newest at latest.
func (r *restic) mount(ctx context.Context, dir string) (cmd *exec.Cmd, latest string) {
	return r.command(ctx, "mount", dir), filepath.Join(dir, "snapshots", "latest")
}

func (r *restic) meter(context.Context) (stop func() (usage, error), err error) {
	nearBefore := r.used
	farBefore, err := cpuTime(r.pid)
	r.peak = memory{}
	return func() (usage, error) {
		far, err := cpuTime(r.pid)
		return usage{r.used - nearBefore, far - farBefore, r.peak}, err
	}, err
}

// copier is cp: what a copy on one disk without any protection costs. Its
// backup ends when the copy is on the disk; its restore, like those of the
// others, does not wait for that.
type copier struct {
	dir  string
	last string
	made int
}

func (*copier) name() string { return "cp" }

func (c *copier) backup(ctx context.Context, source string) error {
	c.made++
	c.last = filepath.Join(c.dir, strconv.Itoa(c.made))
	if err := command(ctx, "cp", "-r", source, c.last); err != nil {
		return err
	}
	return command(ctx, "sync", "-f", c.last)
}

func (c *copier) restore(ctx context.Context, source, target string) error {
	to := filepath.Join(target, source)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return command(ctx, "cp", "-r", c.last, to)
}

var _ = []meter{(*ourselves)(nil), (*restic)(nil)}

// archivers starts a grid and what it is compared with; who is not installed is
// noted.
func archivers(b *testing.B, t *table) (*ourselves, []archiver) {
	b.Helper()
	us := &ourselves{cluster: newCluster(b, quickGossip, holders, 0)}
	all := []archiver{us}
	if r, err := newRestic(b); err != nil {
		t.note("Not compared with restic: %v.", err)
	} else {
		all = append(all, r)
	}
	if _, err := exec.LookPath("cp"); err != nil {
		t.note("Not compared with cp: %v.", err)
	} else {
		all = append(all, &copier{dir: tempDir(b)})
	}
	return us, all
}
