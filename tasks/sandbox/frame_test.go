package sandbox

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/tasks"
)

func sampleTask() taskMessage {
	return taskMessage{
		Args: []string{"a", "", "ü"}, Seed: [32]byte{1, 2},
		Inputs: []tasks.Input{{Name: "x", Content: tasks.ContentID{9}, Size: 1 << 40}, {Name: "y/z"}},
		Stdin:  tasks.ContentID{8}, StdinSize: 1 << 33,
	}
}

func sampleResult() resultMessage {
	return resultMessage{
		State: tasks.StateFailed, ExitCode: 3, Why: "exit code 3", Elapsed: time.Second,
		Stdout: []byte("out"), Stderr: []byte("err"),
		Files: []File{{Name: "a", Size: 2, Data: []byte("hi")}, {Name: "b/c", Size: 1 << 19, number: 7}},
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	s := setup{Limits: testLimits(), ModuleBytes: 12345}
	if got, err := parseSetup(s.append(nil)); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("setup: %+v, %v", got, err)
	}
	h := hello{[]Layer{{"one", true, true, ""}, {"two", false, true, "why"}}}
	if got, err := parseHello(h.append(nil)); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("hello: %+v, %v", got, err)
	}
	r := ready{"fault", "broken", "engine"}
	if got, err := parseReady(r.append(nil)); err != nil || got != r {
		t.Errorf("ready: %+v, %v", got, err)
	}
	m := sampleTask()
	if got, err := parseTask(m.append(nil)); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("task: %+v, %v", got, err)
	}
	out := sampleResult()
	if got, err := parseResult(out.append(nil), testLimits()); err != nil || !reflect.DeepEqual(got, out) {
		t.Errorf("result: %+v, %v", got, err)
	}
}

// TestResultsOfATakenOverChild are well formed and still refused.
func TestResultsOfATakenOverChild(t *testing.T) {
	for name, change := range map[string]func(*resultMessage){
		"name leaves /out":  func(r *resultMessage) { r.Files[0].Name = "../a" },
		"not sorted":        func(r *resultMessage) { r.Files[1].Name = "a" },
		"file too large":    func(r *resultMessage) { r.Files[1].Size = 1<<20 + 1 },
		"files too large":   func(r *resultMessage) { r.Files[1].Size = 1<<20 - 1 },
		"too much output":   func(r *resultMessage) { r.Stdout = make([]byte, 64<<10+1) },
		"done with a code":  func(r *resultMessage) { r.State = tasks.StateDone },
		"limit of no limit": func(r *resultMessage) { r.State = tasks.StateLimit },
		"no limit of limit": func(r *resultMessage) { r.Limit = tasks.LimitWall },
		"too many files":    func(r *resultMessage) { r.Files = make([]File, 33) },
		"long reason":       func(r *resultMessage) { r.Why = string(make([]byte, tasks.MaxWhyBytes+1)) },
	} {
		r := sampleResult()
		change(&r)
		if got, err := parseResult(r.append(nil), testLimits()); !errors.Is(err, errFrame) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 300)).Draw(t, "bodies")
		var stream []byte
		for _, body := range bodies {
			stream = appendFrame(stream, frameTask, func(b []byte) []byte { return append(b, body...) })
		}
		cut := rapid.IntRange(0, len(stream)).Draw(t, "cut")
		r := frameReader{r: bytes.NewReader(stream[:cut])}
		for i := 0; ; i++ {
			body, err := r.next(frameTask, 300)
			if err != nil {
				if atEnd := cut == 0 || i == len(bodies); atEnd && !errors.Is(err, io.EOF) {
					t.Fatalf("at the end: %v", err)
				}
				return
			}
			if !bytes.Equal(body, bodies[i]) {
				t.Fatalf("frame %d is %x, want %x", i, body, bodies[i])
			}
		}
	})
	frame := appendFrame(nil, frameTask, func(b []byte) []byte { return append(b, "12345"...) })
	if _, err := (&frameReader{r: bytes.NewReader(frame)}).next(frameTask, 4); !errors.Is(err, errFrame) {
		t.Errorf("too long: %v", err)
	}
	if _, err := (&frameReader{r: bytes.NewReader(frame)}).next(frameResult, 5); !errors.Is(err, errFrame) {
		t.Errorf("another kind: %v", err)
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add(sampleResult().append(nil))
	f.Add(resultMessage{State: tasks.StateDone}.append(nil))
	f.Add(resultMessage{State: tasks.StateDone, LargeStdout: File{Size: 3 << 20, number: 7}}.append(nil))
	f.Add(resultMessage{State: tasks.StateLimit, Limit: tasks.LimitOutput, ExitCode: -1, Why: "x"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := testLimits()
		limits.StdoutBytes = 4 << 20
		r, err := parseResult(b, limits)
		if err != nil {
			return
		}
		again, err := parseResult(r.append(nil), limits)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

func FuzzParseTask(f *testing.F) {
	f.Add(sampleTask().append(nil))
	f.Add(taskMessage{}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseTask(b); err == nil {
			if again, err := parseTask(m.append(nil)); err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("%+v came back as %+v, %v", m, again, err)
			}
		}
	})
}

func FuzzParseFirstFrames(f *testing.F) {
	f.Add(setup{Limits: testLimits()}.append(nil))
	f.Add(hello{[]Layer{{"one", true, true, ""}}}.append(nil))
	f.Add(ready{Fault: "f"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSetup(b); err == nil {
			if again, err := parseSetup(s.append(nil)); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("setup %+v came back as %+v, %v", s, again, err)
			}
		}
		if h, err := parseHello(b); err == nil && len(h.Layers) > maxLayers {
			t.Errorf("%d layers", len(h.Layers))
		}
		parseReady(b)
	})
}

func FuzzParseSeal(f *testing.F) {
	f.Add(codeSeal{Size: 5, MAC: [32]byte{1}, Place: [2]string{"wazero-v1-amd64-linux", "00ff"}}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSeal(b)
		if err != nil {
			return
		}
		if again, err := parseSeal(s.append(nil)); err != nil || again != s {
			t.Errorf("%+v came back as %+v, %v", s, again, err)
		}
		if filepath.Join("d", s.Place[0], s.Place[1]) != "d/"+s.Place[0]+"/"+s.Place[1] {
			t.Errorf("%q leads elsewhere", s.Place)
		}
	})
}

func FuzzRewrite(f *testing.F) {
	for _, name := range []string{"table", "bigtable", "probe", "trap", "nan"} {
		f.Add(guestModule(f, name))
	}
	f.Fuzz(func(t *testing.T, module []byte) {
		written, err := rewrite(module)
		if err != nil {
			return
		}
		if _, err := rewrite(written); err != nil {
			t.Errorf("a rewritten module is malformed: %v", err)
		}
	})
}
