package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

const (
	outputPieceBytes = 256 << 10
	// progressEvery is how often the command hears how far a run is.
	progressEvery = 250 * time.Millisecond
)

// runEvents sends what happens in one run.
type runEvents struct {
	peer   *Peer
	start  *controlv1.RunStart
	items  *runItems
	stream runStream

	sending sync.Mutex // one message at a time

	mu      sync.Mutex
	last    scheduler.Progress
	reasons waitReasons
}

func (e *runEvents) send(event *controlv1.RunEvent) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	return e.stream.Send(event)
}

// progress notes how far the run is.
func (e *runEvents) progress(p scheduler.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = p
}

// waiting notes why nobody takes tasks.
func (e *runEvents) waiting(refusals []scheduler.Refusal) {
	reasons := make([]string, len(refusals))
	for i, r := range refusals {
		reasons[i] = e.peer.nameOf(r.Peer) + ": " + validText(r.Why)
	}
	if len(reasons) == 0 {
		reasons = []string{nobodyGives}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reasons.note(reasons)
}

// waitReasons are why nobody takes tasks, for somebody who was told already.
type waitReasons struct {
	told string   // what he was told, without numbers
	news []string // what he was not told
}

// note takes the reasons as they are now. Times and sizes in them change all
// the time, and say nothing new.
func (w *waitReasons) note(reasons []string) {
	text := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, strings.Join(reasons, "\n"))
	if text != w.told {
		w.told, w.news = text, reasons
	}
}

// take returns what is new, once.
func (w *waitReasons) take() []string {
	news := w.news
	w.news = nil
	return news
}

// follow sends from time to time why the run waits and, if wanted, how far it
// is, until stop is called.
func (e *runEvents) follow(progress bool) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			if e.tell(progress) != nil {
				return // the stream has ended, as others will say
			}
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}

func (e *runEvents) tell(progress bool) error {
	e.mu.Lock()
	p, reasons := e.last, e.reasons.take()
	e.mu.Unlock()
	if len(reasons) > 0 {
		if err := e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Waiting{Waiting: &controlv1.RunWaiting{Reasons: reasons}}}); err != nil {
			return err
		}
	}
	if !progress {
		return nil
	}
	return e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Progress{Progress: &controlv1.RunProgress{
		Tasks: uint64(p.Tasks), Ended: uint64(p.Ended), Failed: uint64(p.Failed), Running: uint64(p.Running), Peers: uint32(p.Peers),
	}}})
}

// task describes a task by its item.
func (e *runEvents) task(index int) (*controlv1.RunTask, error) {
	entry, err := e.items.entry(e.items.results, index)
	if err != nil {
		return nil, err
	}
	task := &controlv1.RunTask{Index: entry.Seq - 1, Values: entry.Values, Item: bytes.Join(entry.Values, []byte(" "))}
	for _, in := range entry.Inputs {
		task.InputBytes += uint64(in.Size)
	}
	task.InputBytes += uint64(entry.GetStdin().GetSize())
	return task, nil
}

func (e *runEvents) result(a *scheduler.Accepted) error {
	task, err := e.task(a.Task.Index)
	if err != nil {
		return err
	}
	task.State, task.ExitCode, task.Stdout, task.Stderr = string(a.State), int32(a.ExitCode), a.Stdout, a.Stderr
	if a.LargeStdout != nil {
		task.StdoutBytes = uint64(a.LargeStdout.Size)
	}
	task.Limit, task.Remembered, task.Replaces = string(a.Limit), a.FromCache, a.Replaces != [32]byte{}
	task.Seconds, task.Why = a.Elapsed.Seconds(), validText(a.Why)
	task.StartedMillis = time.Now().Add(-a.Elapsed).UnixMilli()
	if !a.Peer.IsZero() {
		if !a.FromCache {
			e.peer.tookWork(a.Peer, a.Elapsed)
		}
		task.Peer, task.PeerName = a.Peer.String(), e.peer.nameOf(a.Peer)
	}
	if err := e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Task{Task: task}}); err != nil {
		return err
	}
	if a.LargeStdout != nil {
		if err := e.stdout(task.Index, a); err != nil {
			return fmt.Errorf("standard output of task %d: %w", task.Index, err)
		}
	}
	if !e.start.Outputs {
		return nil
	}
	for _, out := range a.Outputs {
		if err := e.output(task.Index, a, out); err != nil {
			return fmt.Errorf("output %q of task %d: %w", out.Name, task.Index, err)
		}
	}
	return nil
}

// stopped says what was running when the user had the run stopped.
func (e *runEvents) stopped(sum scheduler.Summary) error {
	event := &controlv1.RunStopped{More: uint64(sum.Stopped - len(sum.Running))}
	for _, r := range sum.Running {
		task, err := e.task(r.Index)
		if err != nil {
			return err
		}
		task.Peer, task.PeerName, task.Seconds = r.Peer.String(), e.peer.nameOf(r.Peer), r.For.Seconds()
		event.Running = append(event.Running, task)
	}
	return e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Stopped{Stopped: event}})
}

func (e *runEvents) summary(sum scheduler.Summary, halt batch.Halt) error {
	event := &controlv1.RunSummary{
		Tasks: uint64(sum.Tasks), Done: uint64(sum.Done), Failed: uint64(sum.Failed + sum.Limited + sum.Lost),
		Cancelled: uint64(sum.Cancelled + sum.Stopped), NotBegun: uint64(sum.NotBegun), Remembered: uint64(sum.Remembered),
		Retried: uint64(sum.Retried), Seconds: sum.Elapsed.Seconds(), Peers: uint32(sum.Peers),
	}
	if sum.Halted {
		event.Halted = halt.String()
	}
	return e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Summary{Summary: event}})
}

// output sends one file of a result.
func (e *runEvents) output(index uint64, a *scheduler.Accepted, out tasks.Output) error {
	r, err := a.OpenOutput(out)
	if err != nil {
		return err
	}
	defer r.Close()
	return sendPieces(r, index, out.Name, func(piece *controlv1.RunOutput) error {
		return e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Output{Output: piece}})
	})
}

// stdout sends a standard output that did not ride in its result.
func (e *runEvents) stdout(index uint64, a *scheduler.Accepted) error {
	r, err := a.OpenOutput(*a.LargeStdout)
	if err != nil {
		return err
	}
	defer r.Close()
	return sendPieces(r, index, "", func(piece *controlv1.RunOutput) error {
		return e.send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Stdout{Stdout: piece}})
	})
}

// sendPieces sends a file below /out of a task in pieces; an empty file is one
// empty piece. A piece is no longer used once send has returned.
func sendPieces(from io.Reader, index uint64, path string, send func(*controlv1.RunOutput) error) error {
	buffer := make([]byte, outputPieceBytes)
	for first := true; ; first = false {
		n, err := io.ReadFull(from, buffer)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		piece := &controlv1.RunOutput{Index: index, Path: path, Data: buffer[:n], First: first, Last: last}
		if err := send(piece); err != nil || last {
			return err
		}
	}
}
