package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks/batch"
)

// follow shows what the peer says of the run, to its end.
func (r *clientRun) follow(call *runCall) error {
	r.show = r.app.newRunScreen()
	defer r.show.close()
	for {
		event, err := call.stream.Recv()
		if err != nil {
			return call.because(err)
		}
		switch e := event.Event.(type) {
		case *controlv1.RunEvent_Task:
			if err = r.logLast(); err == nil {
				err = r.task(e.Task)
			}
		case *controlv1.RunEvent_Stdout:
			err = r.stdout(e.Stdout)
		case *controlv1.RunEvent_Output:
			if r.outputs != nil {
				err = r.outputs.write(e.Output)
			}
		case *controlv1.RunEvent_Progress:
			r.show.progress(e.Progress)
		case *controlv1.RunEvent_Waiting:
			err = r.waiting(e.Waiting)
		case *controlv1.RunEvent_Stopped:
			err = r.stopped(e.Stopped)
		case *controlv1.RunEvent_Summary:
			return errors.Join(r.logLast(), r.summary(call, e.Summary))
		}
		if err != nil {
			return err
		}
	}
}

// task prints what one task did, then logs it: what the log has was shown, and its
// files are there. A large standard output comes in pieces, of which the last ends
// the task; its files come until something else does.
func (r *clientRun) task(t *controlv1.RunTask) error {
	if r.app.json {
		if err := r.app.printJSON(newTaskJSON(t)); err != nil {
			return err
		}
	} else if t.Replaces {
		r.show.line("task %s: what was printed before came of a peer that was caught; this is right:", taskName(t))
	}
	r.text = &guestWriter{w: r.app.stdout, write: r.show.write, tag: r.tag(t)}
	if t.StdoutBytes > 0 {
		r.printing = t
		return nil
	}
	if !r.app.json {
		if err := r.text.add(t.Stdout, true); err != nil {
			return err
		}
	}
	return r.ended(t)
}

// stdout prints a piece of the standard output of the task before it.
func (r *clientRun) stdout(piece *controlv1.RunOutput) (err error) {
	t := r.printing
	if t == nil || piece.Index != t.Index {
		return errors.New("the peer sent output of no task")
	}
	if r.app.json {
		err = r.app.printJSON(newStdoutJSON(piece))
	} else {
		err = r.text.add(piece.Data, piece.Last)
	}
	if err != nil || !piece.Last {
		return err
	}
	r.printing = nil
	return r.ended(t)
}

// ended prints what a task has to say beside its standard output.
func (r *clientRun) ended(t *controlv1.RunTask) error {
	if !r.app.json {
		if err := r.printEnd(t); err != nil {
			return err
		}
	}
	r.unlogged = t
	if r.outputs != nil {
		r.outputs.begin(t)
		return nil
	}
	return r.logLast()
}

// logLast logs the task whose files were the last to come.
func (r *clientRun) logLast() error {
	t := r.unlogged
	r.unlogged = nil
	if r.log == nil || t == nil {
		return nil
	}
	command, err := r.command(t)
	if err != nil {
		return err
	}
	return r.log.add(t, command)
}

// command returns the words of a task as they would be typed.
func (r *clientRun) command(t *controlv1.RunTask) ([]string, error) {
	values := make([]string, len(t.Values))
	for i, v := range t.Values {
		values[i] = string(v)
	}
	return r.words(int(t.Index)+1, values)
}

func (r *clientRun) words(seq int, values []string) ([]string, error) {
	words := slices.Clone(r.module)
	if r.template != nil {
		args, err := r.template.Expand(seq, values)
		return append(words, args...), err
	}
	for _, arg := range r.start.Args {
		words = append(words, string(arg))
	}
	return words, nil
}

// tag is what stands before each line of a task; empty: nothing.
func (r *clientRun) tag(t *controlv1.RunTask) string {
	if !r.flags.tag {
		return ""
	}
	return string(t.Item) + "\t"
}

func (r *clientRun) printEnd(t *controlv1.RunTask) error {
	text := &guestWriter{w: r.app.stderr, write: r.show.write, tag: r.tag(t)}
	if err := text.add(t.Stderr, true); err != nil {
		return err
	}
	if t.State == "cancelled" {
		r.show.line("stopped: task %s on %s after %s", taskName(t), printable(t.PeerName), secondsText(t.Seconds))
	} else if t.State != "done" || t.ExitCode != 0 {
		at := ""
		if t.PeerName != "" {
			at = " on " + printable(t.PeerName)
		}
		r.show.line("task %s%s: %s", taskName(t), at, taskOutcome(t))
	}
	return nil
}

// taskName is how a task is called in messages.
func taskName(t *controlv1.RunTask) string {
	if len(t.Item) == 0 {
		return fmt.Sprint(t.Index)
	}
	return fmt.Sprintf("%d (%s)", t.Index, printable(string(t.Item)))
}

func taskOutcome(t *controlv1.RunTask) string {
	if t.State == "done" {
		return fmt.Sprintf("exit code %d", t.ExitCode)
	}
	text := t.State
	if t.Why != "" {
		text += ": " + printable(t.Why)
	}
	return text
}

// maxReasons bounds the peers of which a line says why they take no tasks.
const maxReasons = 4

// waiting says why nobody takes tasks.
func (r *clientRun) waiting(w *controlv1.RunWaiting) error {
	if r.app.json {
		return r.app.printJSON(struct {
			Type    string   `json:"type"`
			Reasons []string `json:"reasons"`
		}{"waiting", w.Reasons})
	}
	text := strings.Join(w.Reasons[:min(len(w.Reasons), maxReasons)], "; ")
	if more := len(w.Reasons) - maxReasons; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	r.show.line("waiting, because no peer takes a task now: %s", text)
	return nil
}

// stopped says what was running when the run was stopped.
func (r *clientRun) stopped(s *controlv1.RunStopped) error {
	for _, t := range s.Running {
		if r.app.json {
			if err := r.app.printJSON(struct {
				Type    string  `json:"type"`
				Index   uint64  `json:"index"`
				Item    string  `json:"item"`
				Peer    string  `json:"peer"`
				Seconds float64 `json:"seconds"`
			}{"running", t.Index, string(t.Item), t.Peer, t.Seconds}); err != nil {
				return err
			}
			continue
		}
		r.show.line("stopped: task %s on %s after %s", taskName(t), printable(t.PeerName), secondsText(t.Seconds))
	}
	if s.More > 0 {
		r.show.line("stopped: %s more", countText(s.More, "task", "tasks"))
	}
	return nil
}

func secondsText(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond).String()
}

// summary says how the run went and returns its failure, if it is one.
func (r *clientRun) summary(call *runCall, s *controlv1.RunSummary) error {
	if r.app.json {
		if err := r.app.printJSON(newRunSummaryJSON(s)); err != nil {
			return err
		}
	} else {
		r.show.line("%s", r.summaryText(s))
	}
	began := s.Tasks - s.NotBegun
	switch {
	case call.interrupted():
		return &failure{
			code: exitInterrupted, what: fmt.Sprintf("interrupted: %d of %s done", s.Done, countText(s.Tasks, "task", "tasks")),
			meaning: "what was printed is complete; tasks that were running were stopped and count for nothing",
			next:    r.resumeHint(), cause: context.Canceled,
		}
	case s.Failed > 0 && !enoughSucceeded(s):
		return &failure{code: exitFailed, what: fmt.Sprintf("%d of %s failed", s.Failed, countText(began, "task", "tasks"))}
	}
	return nil
}

// enoughSucceeded reports whether the run ended because so many tasks succeeded as
// were wanted: those that failed before are no failure then.
func enoughSucceeded(s *controlv1.RunSummary) bool {
	h, err := batch.ParseHalt(s.Halted)
	return err == nil && h.What == batch.HaltSuccess
}

func (r *clientRun) resumeHint() string {
	if r.log != nil {
		return "the same command with --resume"
	}
	return ""
}

// summaryText is the last line: tasks, peers, time, and what was not usual.
func (r *clientRun) summaryText(s *controlv1.RunSummary) string {
	if s.Tasks == 0 {
		if r.skipped > 0 {
			return fmt.Sprintf("nothing to do: the joblog has all %s", countText(uint64(r.skipped), "task", "tasks"))
		}
		return "there were no items: nothing was run"
	}
	parts := []string{fmt.Sprintf("%s on %s in %s", countText(s.Tasks, "task", "tasks"), countText(uint64(s.Peers), "peer", "peers"), secondsText(s.Seconds))}
	for _, p := range []struct {
		n    uint64
		text string
	}{
		{s.Failed, "failed"}, {s.Cancelled, "stopped"}, {s.NotBegun, "not begun"}, {s.Retried, "run again"},
		{s.Remembered, "remembered"}, {uint64(r.skipped), "done before"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	if s.Halted != "" {
		parts = append(parts, "ended by --halt "+printable(s.Halted))
	}
	return strings.Join(parts, ", ")
}

// runScreen is where a run prints: below what tasks print there may be a line
// of progress.
type runScreen struct {
	app  *app
	bar  *stepBar
	rest []byte // of a line on the terminal that has not ended
}

// restMost is how long a line on the terminal may be for it not to be cut up.
const restMost = 64 << 10

// wantsProgress reports whether somebody looks at progress.
func (a *app) wantsProgress() bool { return !a.json && isTerminal(a.stderr) }

func (a *app) newRunScreen() *runScreen { return &runScreen{app: a, bar: a.startSteps()} }

func (s *runScreen) close() {
	if len(s.rest) > 0 {
		s.write(s.app.stdout, []byte("\n"))
	}
	s.bar.stop()
	s.bar = nil
}

func (s *runScreen) progress(p *controlv1.RunProgress) {
	if s.bar == nil {
		return
	}
	doing := fmt.Sprintf("%d running on %s", p.Running, countText(uint64(p.Peers), "peer", "peers"))
	if p.Failed > 0 {
		doing += fmt.Sprintf(", %d failed", p.Failed)
	}
	s.bar.set(&controlv1.WorkProgress{Doing: doing, Done: p.Ended, Total: p.Tasks})
}

// line prints a line to standard error.
func (s *runScreen) line(format string, args ...any) {
	s.write(s.app.stderr, []byte(printableLines(fmt.Sprintf(format, args...))+"\n"))
}

// write prints above the line of progress when that is on the same terminal.
func (s *runScreen) write(w io.Writer, text []byte) error {
	if s.bar == nil || !isTerminal(w) {
		_, err := w.Write(text)
		return err
	}
	s.rest = append(s.rest, text...)
	whole := bytes.LastIndexByte(s.rest, '\n') + 1
	if whole == 0 && len(s.rest) < restMost {
		return nil
	}
	if whole == 0 {
		whole = len(s.rest)
	}
	_, err := s.bar.container.Write(s.rest[:whole])
	s.rest = append(s.rest[:0], s.rest[whole:]...)
	return err
}

// showPlan prints what would be run, and which peers would take it.
func (r *clientRun) showPlan(call *runCall) error {
	n := 0
	show := func(item runItem) error {
		if call.interrupted() {
			return context.Canceled
		}
		n++
		return r.showTask(item)
	}
	var err error
	if r.start.HasItems {
		err = r.eachItem(show)
	} else {
		err = show(runItem{seq: 1})
	}
	if err != nil {
		return call.because(err)
	}
	event, err := call.stream.Recv()
	if err != nil {
		return call.because(err)
	}
	plan := event.GetPlan()
	if plan == nil {
		return errors.New("the peer did not say which peers would take the tasks")
	}
	return r.showPeers(n, plan)
}

func (r *clientRun) showTask(item runItem) error {
	staged, err := r.stage.files(item.values)
	if err != nil {
		return err
	}
	values := append([]string(nil), item.values...)
	for _, file := range staged {
		values[file.value-1] = "/in/" + file.name
	}
	words, err := r.words(int(item.seq), values)
	if err != nil {
		return err
	}
	if r.app.json {
		return r.app.printJSON(struct {
			Type  string   `json:"type"`
			Index uint64   `json:"index"`
			Args  []string `json:"args"`
			Stdin int      `json:"stdin_bytes,omitempty"`
		}{"planned", item.seq - 1, words[1:], len(item.block)})
	}
	text := shellWords(words)
	if item.block != nil {
		text += fmt.Sprintf(" < block of %s", bytesText(uint64(len(item.block))))
	}
	_, err = fmt.Fprintln(r.app.stdout, text)
	return err
}

func (r *clientRun) showPeers(n int, plan *controlv1.RunPlan) error {
	fit, slots := 0, uint32(0)
	for _, p := range plan.Peers {
		if p.Fits {
			fit++
			slots += p.Slots
		}
		if r.app.json {
			if err := r.app.printJSON(struct {
				Type  string `json:"type"`
				ID    string `json:"id"`
				Name  string `json:"name"`
				Fits  bool   `json:"fits"`
				Why   string `json:"why,omitempty"`
				Slots uint32 `json:"slots"`
				Free  uint32 `json:"free"`
			}{"peer", p.Peer, p.Name, p.Fits, p.Why, p.Slots, p.Free}); err != nil {
				return err
			}
		}
	}
	if !r.app.json {
		if err := writeTable(r.app.stderr, "PEER\tWOULD RUN\tSLOTS\tFREE\tWHY NOT", func(w io.Writer) {
			for _, p := range plan.Peers {
				fits := "no"
				if p.Fits {
					fits = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", printable(p.Name), fits, p.Slots, p.Free, printable(p.Why))
			}
		}); err != nil {
			return err
		}
		fmt.Fprintf(r.app.stderr, "%s would run on %s with %s\n", countText(uint64(n), "task", "tasks"),
			countText(uint64(fit), "peer", "peers"), countText(uint64(slots), "slot", "slots"))
	}
	if fit == 0 && n > 0 {
		return &failure{code: exitTooFew, what: "no peer would take a task now", next: "gotong peers"}
	}
	return nil
}
