package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
)

func TestWaitingIsOneLine(t *testing.T) {
	var reasons []string
	for i := range 6 {
		reasons = append(reasons, fmt.Sprintf("p%d: on\x1b battery", i))
	}
	for json, want := range map[bool]string{
		false: `waiting, because no peer takes a task now: p0: on\x1b battery; p1: on\x1b battery; p2: on\x1b battery; p3: on\x1b battery; and 2 more` + "\n",
		true:  `{"type":"waiting","reasons":["p0: on\u001b battery"]}` + "\n",
	} {
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr, json: json}
		r := &clientRun{app: a, show: a.newRunScreen()}
		out, list := &stderr, reasons
		if json {
			out, list = &stdout, reasons[:1]
		}
		if err := r.waiting(&controlv1.RunWaiting{Reasons: list}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want || stdout.Len()+stderr.Len() != len(want) {
			t.Errorf("json %v: %q and %q", json, stdout.String(), stderr.String())
		}
	}
}

// eventsOf is a conversation in which the peer only speaks.
type eventsOf struct {
	grpc.BidiStreamingClient[controlv1.RunRequest, controlv1.RunEvent]
	list []*controlv1.RunEvent
}

func (e *eventsOf) Recv() (*controlv1.RunEvent, error) {
	if len(e.list) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	event := e.list[0]
	e.list = e.list[1:]
	return event, nil
}

func taskEvent(index uint64, item string) *controlv1.RunEvent {
	return &controlv1.RunEvent{Event: &controlv1.RunEvent_Task{Task: &controlv1.RunTask{Index: index, Item: []byte(item), State: "done"}}}
}

func fileEvent(index uint64, path string, last bool) *controlv1.RunEvent {
	return &controlv1.RunEvent{Event: &controlv1.RunEvent_Output{Output: &controlv1.RunOutput{Index: index, Path: path, Data: []byte("x"), First: true, Last: last}}}
}

// TestJoblogWaitsForFiles: a task whose files did not arrive whole runs again when
// the run is resumed.
func TestJoblogWaitsForFiles(t *testing.T) {
	summary := &controlv1.RunEvent{Event: &controlv1.RunEvent_Summary{Summary: &controlv1.RunSummary{Tasks: 2, Done: 2}}}
	for name, c := range map[string]struct {
		last []*controlv1.RunEvent
		want []uint64
		ok   bool
	}{
		"all is there":       {[]*controlv1.RunEvent{fileEvent(1, "f", true), summary}, []uint64{1, 2}, true},
		"the peer dies":      {[]*controlv1.RunEvent{fileEvent(1, "f", false)}, []uint64{1}, false},
		"it cannot be taken": {[]*controlv1.RunEvent{fileEvent(1, "", true), summary}, []uint64{1}, false}, // the name is a directory's
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "log")
			r := &clientRun{app: &app{stdout: io.Discard, stderr: io.Discard}, start: &controlv1.RunStart{}}
			var err error
			if r.log, _, err = openJoblog(path, false, false); err != nil {
				t.Fatal(err)
			}
			if r.outputs, err = openOutputDir(filepath.Join(dir, "out"), true); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "out", "b~1"), 0o755); err != nil {
				t.Fatal(err)
			}
			events := append([]*controlv1.RunEvent{taskEvent(0, "a"), fileEvent(0, "f", true), taskEvent(1, "b")}, c.last...)
			if err := r.follow(&runCall{stream: &eventsOf{list: events}}); (err == nil) != c.ok {
				t.Error(err)
			}
			if err := r.closeFiles(); err != nil {
				t.Fatal(err)
			}
			log, skip, err := openJoblog(path, true, false)
			if err != nil {
				t.Fatal(err)
			}
			defer log.close()
			if got := slices.Sorted(maps.Keys(skip)); !slices.Equal(got, c.want) {
				t.Errorf("the log has %d, want %d", got, c.want)
			}
		})
	}
}

// TestDirectoriesOfEqualItems are the same whichever task ends first, and when the
// others do not run again.
func TestDirectoriesOfEqualItems(t *testing.T) {
	for name, ends := range map[string][]uint64{"in order": {0, 1, 2}, "as they come": {2, 1, 0}, "resumed": {2}} {
		o, err := openOutputDir(t.TempDir(), true)
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range []string{"a", "b", "a"} {
			o.expect(runItem{seq: uint64(i + 1), values: []string{item}})
		}
		for _, i := range ends {
			want := []string{"a", "b", "a~2"}[i]
			if o.begin(&controlv1.RunTask{Index: i, Item: []byte(strings.TrimSuffix(want, "~2"))}); o.item != want {
				t.Errorf("%s: task %d has %s, want %s", name, i, o.item, want)
			}
		}
		o.close()
	}
}

// TestJoblogMayBeADevice: one that is begun is not read.
func TestJoblogMayBeADevice(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	if _, _, err := openJoblog("/dev/full", false, false); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	log, skip, err := openJoblog(os.DevNull, false, false)
	if err = errors.Join(err, log.close()); err != nil || len(skip) > 0 {
		t.Error(skip, err)
	}
}
