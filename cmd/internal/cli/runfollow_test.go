package cli

import (
	"bytes"
	"fmt"
	"testing"

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
