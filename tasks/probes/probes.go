// Package probes shows on this machine that a hostile program gets nowhere: it
// runs hostile modules in sandboxes, has a child in a sandbox's place try what a
// guest that took it over might, and looks whether the peer's files and other
// tasks are what they were. It needs no peer and no home; everything that is
// attacked is made for the purpose, in a temporary directory.
package probes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// Config says what is probed.
type Config struct {
	// Executable is as in sandbox.Options.
	Executable string
	// Without names layers to leave out for the native attempts, of
	// sandbox.Removable, so that one sees them noticed.
	Without []string
}

// Probe is one thing that was tried.
type Probe struct {
	Name    string
	Refused bool
	How     string // what refused it, or what it reached, in words
}

// Summary counts the probes.
type Summary struct {
	Probes, Refused int
	Layers          []sandbox.Layer
}

// Passed reports whether there were probes and all were refused.
func (s Summary) Passed() bool { return s.Probes > 0 && s.Probes == s.Refused }

// Run tries everything and reports each probe as it ends. The error means that
// the probes could not be made; that one got through is in the Summary.
func Run(ctx context.Context, cfg Config, report func(Probe)) (Summary, error) {
	r := &run{cfg: cfg, report: report}
	err := r.all(ctx)
	return r.summary, err
}

type run struct {
	cfg      Config
	report   func(Probe)
	launcher *sandbox.Launcher
	dir      string
	bait     *bait
	dirs     int
	summary  Summary
}

func (r *run) all(ctx context.Context) (err error) {
	if r.dir, err = os.MkdirTemp("", "gotong-probe-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	if r.launcher, err = sandbox.OpenLauncher(sandbox.Options{Executable: r.cfg.Executable}); err != nil {
		return err
	}
	defer r.launcher.Close()
	if r.bait, err = layBait(filepath.Join(r.dir, "home")); err != nil {
		return err
	}
	defer r.bait.close()
	if err := r.layers(ctx); err != nil {
		return err
	}
	beside, err := r.startNeighbour(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(r.guests(ctx), r.native(ctx))
	r.add(beside.end())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.add(r.bait.check())
	return err
}

func (r *run) add(p Probe) {
	r.summary.Probes++
	if p.Refused {
		r.summary.Refused++
	}
	r.report(p)
}

// staging makes a directory for one child.
func (r *run) staging() (string, error) {
	r.dirs++
	dir := filepath.Join(r.dir, fmt.Sprint(r.dirs))
	return dir, os.Mkdir(dir, 0o700)
}

// layers finds out what confines guests here; without a required layer none
// would be started, which is an error.
func (r *run) layers(ctx context.Context) error {
	dir, err := r.staging()
	if err != nil {
		return err
	}
	if r.summary.Layers, err = r.launcher.Layers(ctx, dir); err != nil {
		return err
	}
	return sandbox.Refusal(r.summary.Layers)
}

// secret is what a child tries to read in this process.
var secret = byte('s')

func (r *run) native(ctx context.Context) error {
	dir, err := r.staging()
	if err != nil {
		return err
	}
	_, attempts, err := r.launcher.Probe(ctx, dir, sandbox.Targets{
		Process: os.Getpid(), Key: r.bait.key, Dir: r.bait.data, Socket: r.bait.socket,
		Address: uint64(uintptr(unsafe.Pointer(&secret))), Without: r.cfg.Without,
	})
	if err != nil {
		return err
	}
	for _, a := range attempts {
		r.add(Probe{"native: " + a.Name, a.Refused, a.How})
	}
	return nil
}

// bait is what a peer has and a guest must not reach.
type bait struct {
	root, key, data, socket string
	listener                net.Listener
	accepted                chan struct{} // closed when somebody connected
	before                  string
}

func layBait(root string) (*bait, error) {
	b := &bait{
		root: root, key: filepath.Join(root, "node.key"), data: filepath.Join(root, "data"),
		socket: filepath.Join(root, "control.sock"), accepted: make(chan struct{}),
	}
	content := make([]byte, 64)
	rand.Read(content)
	err := errors.Join(
		os.MkdirAll(b.data, 0o700),
		os.WriteFile(b.key, content, 0o600),
		os.WriteFile(filepath.Join(b.data, "shard"), content, 0o600))
	if err != nil {
		return nil, err
	}
	if b.listener, err = net.Listen("unix", b.socket); err != nil {
		return nil, err
	}
	go func() {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
		close(b.accepted)
	}()
	b.before, err = b.look()
	return b, err
}

func (b *bait) close() { b.listener.Close() }

// look describes every file with its content.
func (b *bait) look() (string, error) {
	text := ""
	err := filepath.WalkDir(b.root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text += fmt.Sprintf("%s %s", path, info.Mode())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", content)
		}
		text += "\n"
		return nil
	})
	return text, err
}

// check looks whether anything was changed or reached.
func (b *bait) check() Probe {
	p := Probe{Name: "harm to the peer's key, data and socket", Refused: true, How: "all is as it was"}
	select {
	case <-b.accepted:
		return Probe{p.Name, false, "somebody connected to the control socket"}
	default:
	}
	after, err := b.look()
	switch {
	case err != nil:
		p.Refused, p.How = false, err.Error()
	case after != b.before:
		p.Refused, p.How = false, "files were changed"
	}
	return p
}

// smallLimits are met quickly by a guest without measure.
func smallLimits() tasks.Limits {
	l := tasks.DefaultLimits()
	l.MemoryBytes, l.Wall = 64<<20, guestWall
	l.OutputBytes, l.OutputFiles = 4<<20, 64
	l.StdoutBytes, l.StderrBytes = 64<<10, 16<<10
	return l
}
