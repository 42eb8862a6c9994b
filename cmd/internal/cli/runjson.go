package cli

import (
	"unicode/utf8"

	controlv1 "gotong/proto/control/v1"
)

// taskJSON is one task as scripts read it. Output that is not UTF-8 stands in
// base64 under another name, so that no byte is lost or altered.
type taskJSON struct {
	Type         string  `json:"type"`
	Index        uint64  `json:"index"`
	Item         string  `json:"item"`
	Peer         string  `json:"peer"`
	State        string  `json:"state"`
	ExitCode     int32   `json:"exit_code"`
	Stdout       *string `json:"stdout,omitempty"`
	StdoutBase64 []byte  `json:"stdout_base64,omitempty"`
	// StdoutBytes is not 0 when standard output is too long for one line: then it
	// follows in lines of stdoutJSON, and neither of the two above is there.
	StdoutBytes  uint64  `json:"stdout_bytes,omitempty"`
	Stderr       *string `json:"stderr,omitempty"`
	StderrBase64 []byte  `json:"stderr_base64,omitempty"`
	Seconds      float64 `json:"seconds"`
	Why          string  `json:"why,omitempty"`
	Limit        string  `json:"limit,omitempty"`
	Remembered   bool    `json:"remembered,omitempty"`
	Replaces     bool    `json:"replaces,omitempty"`
}

func newTaskJSON(t *controlv1.RunTask) taskJSON {
	out := taskJSON{Type: "task", Index: t.Index, Item: string(t.Item), Peer: t.Peer, State: t.State,
		ExitCode: t.ExitCode, Seconds: t.Seconds, Why: t.Why,
		Limit: t.Limit, Remembered: t.Remembered, Replaces: t.Replaces}
	out.text(t.Stdout, t.StdoutBytes, t.Stderr)
	return out
}

// text sets what the task printed.
func (t *taskJSON) text(stdout []byte, large uint64, stderr []byte) {
	if t.StdoutBytes = large; large == 0 {
		t.Stdout, t.StdoutBase64 = textOrBytes(stdout)
	}
	t.Stderr, t.StderrBase64 = textOrBytes(stderr)
}

// stdoutJSON is a piece of the standard output of the task before it.
type stdoutJSON struct {
	Type         string  `json:"type"`
	Index        uint64  `json:"index"`
	Stdout       *string `json:"stdout,omitempty"`
	StdoutBase64 []byte  `json:"stdout_base64,omitempty"`
	Last         bool    `json:"last,omitempty"`
}

func newStdoutJSON(piece *controlv1.RunOutput) stdoutJSON {
	out := stdoutJSON{Type: "stdout", Index: piece.Index, Last: piece.Last}
	out.Stdout, out.StdoutBase64 = textOrBytes(piece.Data)
	return out
}

// textOrBytes returns exactly one of the two: the text if it is UTF-8.
func textOrBytes(b []byte) (*string, []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	text := string(b)
	return &text, nil
}

// runSummaryJSON is the last line of a run.
type runSummaryJSON struct {
	Type       string  `json:"type"`
	Tasks      uint64  `json:"tasks"`
	Done       uint64  `json:"done"`
	Failed     uint64  `json:"failed"`
	Cancelled  uint64  `json:"cancelled,omitempty"`
	NotBegun   uint64  `json:"not_begun,omitempty"`
	Retried    uint64  `json:"retried"`
	Remembered uint64  `json:"remembered"`
	Peers      uint32  `json:"peers"`
	Seconds    float64 `json:"seconds"`
	Halted     string  `json:"halted,omitempty"`
}

func newRunSummaryJSON(s *controlv1.RunSummary) runSummaryJSON {
	return runSummaryJSON{
		Type: "summary", Tasks: s.Tasks, Done: s.Done, Failed: s.Failed, Cancelled: s.Cancelled, NotBegun: s.NotBegun,
		Retried: s.Retried, Remembered: s.Remembered, Peers: s.Peers, Seconds: s.Seconds, Halted: s.Halted,
	}
}
