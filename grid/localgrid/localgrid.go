// Package localgrid runs whole peers as processes of this machine: a grid of
// real programs with real sockets and disks on the loopback interface, for the
// demonstration, end-to-end tests and benchmarks. It talks to a peer as a user
// does, through the command line.
package localgrid

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	readyTimeout = time.Minute      // for a starting peer to serve
	aliveTimeout = 2 * time.Minute  // for peers to be seen alive or away, on a busy machine too
	stopTimeout  = 30 * time.Second // for a stopping peer to end, after which it is killed
	pollInterval = 50 * time.Millisecond
	logName      = "up.log"
)

// Config says how the peers of a Grid are run.
type Config struct {
	Executable string   // the gotong program
	Dir        string   // the homes are made below it
	Env        []string // NAME=VALUE added to this process's environment
	Args       []string // arguments of every init and join besides those of the call
	// Detach leaves running peers alone when this process ends.
	Detach bool
	// Place says where a peer runs: a command that runs the program for it,
	// such as one that enters a network namespace, and what it listens on. Nil
	// means here, on a free port of the loopback interface.
	Place func(name string) (command []string, listen string)
}

// oneMachine are rules of donors that mean a machine, which these peers share:
// they work whoever sits at it. The environment may say otherwise.
var oneMachine = []string{"GOTONG_DONATE_IDLE=0s", "GOTONG_DONATE_LOAD=100%", "GOTONG_DONATE_BATTERY=true", "GOTONG_DONATE_DISK_FREE=0B"}

// loopback is where peers listen that have no place of their own.
const loopback = "127.0.0.1:0"

// place returns the command line of the program for a peer, and where it listens.
func (c Config) place(name string) (command []string, listen string) {
	if c.Place == nil {
		return []string{c.Executable}, loopback
	}
	command, listen = c.Place(name)
	return append(command[:len(command):len(command)], c.Executable), listen
}

// Grid is a set of peers on this machine. Its methods may be called from
// several goroutines.
type Grid struct {
	config Config

	mu    sync.Mutex
	peers []*Peer
}

// New returns an empty grid.
func New(config Config) *Grid { return &Grid{config: config} }

// Peers returns the peers in the order in which they were made.
func (g *Grid) Peers() []*Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*Peer(nil), g.peers...)
}

// Found makes the first peer of a new grid and starts it.
func (g *Grid) Found(ctx context.Context, name string, args ...string) (*Peer, error) {
	return g.add(ctx, name, append([]string{"init"}, args...))
}

// Join makes a peer that is invited by another one, and starts it.
func (g *Grid) Join(ctx context.Context, inviter *Peer, name string, args ...string) (*Peer, error) {
	var invite struct{ Code string }
	if err := inviter.JSON(ctx, &invite, "invite"); err != nil {
		return nil, err
	}
	return g.add(ctx, name, append([]string{"join", invite.Code}, args...))
}

// Recover makes a peer for the owner of a phrase, which is in a file, through
// another one, and starts it.
func (g *Grid) Recover(ctx context.Context, through *Peer, name, phraseFile string, args ...string) (*Peer, error) {
	return g.add(ctx, name, append([]string{"recover", through.ID + "@" + through.Listen, "--phrase-file", phraseFile}, args...))
}

// add makes a home with init, join or recover and starts its peer.
func (g *Grid) add(ctx context.Context, name string, args []string) (*Peer, error) {
	p := &Peer{Name: name, Home: filepath.Join(g.config.Dir, name), config: g.config}
	_, listen := g.config.place(name)
	args = append(args, "--name", name, "--listen", listen)
	args = append(args, g.config.Args...)
	var made struct {
		Peer, Owner string
		Phrase      string `json:"recovery_phrase"`
	}
	if err := p.JSON(ctx, &made, args...); err != nil {
		return nil, err
	}
	p.ID, p.Owner, p.Phrase = made.Peer, made.Owner, made.Phrase
	g.mu.Lock()
	g.peers = append(g.peers, p)
	g.mu.Unlock()
	return p, p.Start(ctx)
}

// WaitAlive returns when peer sees n members alive, itself included.
func (g *Grid) WaitAlive(ctx context.Context, peer *Peer, n int) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	alive := 0
	for {
		var list struct{ Peers []struct{ State string } }
		if err := peer.JSON(ctx, &list, "peers"); err != nil {
			return fmt.Errorf("%d of %d peers alive: %w", alive, n, err)
		}
		alive = 0
		for _, p := range list.Peers {
			if p.State == "alive" {
				alive++
			}
		}
		if alive == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d peers alive: %w", alive, n, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// Close stops every peer that runs. It does not remove the homes.
func (g *Grid) Close() error {
	var wait sync.WaitGroup
	peers := g.Peers()
	errs := make([]error, len(peers))
	for i, p := range peers {
		wait.Go(func() { errs[i] = p.Stop() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Peer is one peer with its home and, while it runs, its process.
type Peer struct {
	Name   string
	Home   string
	ID     string // PeerID
	Owner  string // OwnerID
	Phrase string // recovery phrase as init or join printed it
	Listen string // HOST:PORT of the last start

	config Config

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// Command returns a gotong command for this peer's home; the caller runs it.
func (p *Peer) Command(ctx context.Context, args ...string) *exec.Cmd {
	command, _ := p.config.place(p.Name)
	command = append(append(command, "--home", p.Home), args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = slices.Concat(oneMachine, os.Environ(), p.config.Env)
	return cmd
}

// CommandError is a command of a peer that ended with an exit code.
type CommandError struct {
	Peer   string
	Args   []string
	Code   int
	Stderr string
}

// Error names the peer and the command, and quotes what it said.
func (e *CommandError) Error() string {
	return fmt.Sprintf("gotong %s at %s: exit code %d: %s", strings.Join(e.Args, " "), e.Peer, e.Code, strings.TrimSpace(e.Stderr))
}

// JSON runs a command with --json and decodes its last line into out; out may
// be nil. A command that fails is a *CommandError, after decoding.
func (p *Peer) JSON(ctx context.Context, out any, args ...string) error {
	return p.Lines(ctx, func(line []byte) error {
		if out == nil {
			return nil
		}
		return json.Unmarshal(line, out)
	}, args...)
}

// Lines runs a command with --json and hands each line to f.
func (p *Peer) Lines(ctx context.Context, f func(line []byte) error, args ...string) error {
	cmd := p.Command(ctx, append([]string{args[0], "--json"}, args[1:]...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(stdout)
	var bad error
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 && bad == nil {
			bad = f(line)
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return &CommandError{p.Name, args, exit.ExitCode(), stderr.String()}
		}
		return err
	}
	return bad
}

// Start runs "gotong up" and returns when the peer serves.
func (p *Peer) Start(ctx context.Context, args ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s runs already", p.Name)
	}
	log, err := os.OpenFile(filepath.Join(p.Home, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.Command(context.WithoutCancel(ctx), append([]string{"up", "--json"}, args...)...)
	cmd.Stderr = log
	if p.config.Detach {
		detach(cmd)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	ready := make(chan error, 1)
	go func() {
		ready <- p.readReady(bufio.NewReader(stdout))
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(readyTimeout):
		err = errors.New("not ready in time")
	}
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-done
		return fmt.Errorf("start %s: %w\n%s", p.Name, err, p.logTail())
	}
	p.cmd, p.done = cmd, done
	return nil
}

func (p *Peer) readReady(stdout *bufio.Reader) error {
	line, err := stdout.ReadBytes('\n')
	if err != nil {
		return errors.New("it ended before it was ready")
	}
	var ready struct{ Listen string }
	err = json.Unmarshal(line, &ready)
	p.Listen = ready.Listen
	return err
}

// logTail returns the last lines of what the peer wrote to standard error.
func (p *Peer) logTail() string {
	text, err := os.ReadFile(filepath.Join(p.Home, logName))
	if err != nil {
		return err.Error()
	}
	const tail = 2000
	return string(text[max(0, len(text)-tail):])
}

// PID returns the process id of the running peer, 0 when it does not run.
func (p *Peer) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Kill ends the peer as a power cut would and waits until it is gone.
func (p *Peer) Kill() error { return p.end(false) }

// Stop asks the peer to end, waits, and kills it when it does not.
func (p *Peer) Stop() error { return p.end(true) }

func (p *Peer) end(ask bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	cmd, done := p.cmd, p.done
	p.cmd = nil
	var err error
	if ask && askToEnd(cmd.Process) == nil {
		select {
		case <-done:
			return nil
		case <-time.After(stopTimeout):
			err = fmt.Errorf("%s did not stop within %s", p.Name, stopTimeout)
		}
	}
	_ = cmd.Process.Kill() // it may have ended meanwhile
	<-done
	return err
}
