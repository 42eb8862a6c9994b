package cli

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"gotong/configs"
)

func TestSystemdText(t *testing.T) {
	text, named, err := systemdText(`/opt/a b%c$d/gotong`, `/srv/x%"\ $y`, true)
	if err != nil {
		t.Fatal(err)
	}
	const program = `"/opt/a b%%c$d/gotong" --home "/srv/x%%\"\\ $$y" `
	for _, line := range []string{"ExecStart=" + program + "up", "ExecReload=" + program + "config reload", "Delegate=memory pids cpu", "WantedBy=default.target"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	if first, _, _ := strings.Cut(text, "\n"); !strings.Contains(first, serviceMark) || !strings.Contains(text, named) || strings.Contains(text, configs.UnitProgram) {
		t.Errorf("unit\n%s", text)
	}
}

func TestSystemdTextOfTheMachineRunsAsTheOwnerOfTheHome(t *testing.T) {
	home := t.TempDir()
	owner := ""
	switch {
	case os.Getuid() < 0:
		t.Skip("no numbers of users here")
	case os.Getuid() == 0:
		if err := os.Chown(home, 4711, -1); err != nil {
			t.Skip(err)
		}
		owner = "User=4711\n"
	}
	text, _, err := systemdText("/bin/gotong", home, false)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "[Service]\nUser=") || !strings.Contains(text, owner) || !strings.Contains(text, "\nWantedBy=multi-user.target\n") {
		t.Errorf("unit\n%s", text)
	}
}

func TestAgentTextIsXML(t *testing.T) {
	text, _, err := agentText("/a<b/gotong", "/Users/x & y")
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(text, "\n"); !strings.Contains(first, serviceMark) {
		t.Errorf("first line %s", first)
	}
	var words strings.Builder
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := token.(xml.CharData); ok {
			words.Write(append(data, ' '))
		}
	}
	if got := strings.Join(strings.Fields(words.String()), " "); !strings.Contains(got, "/a<b/gotong --home /Users/x & y up") {
		t.Errorf("words %s", got)
	}
}

func TestServiceProgramIsThereToStay(t *testing.T) {
	for path, ok := range map[string]bool{
		"/usr/local/bin/gotong":                            true,
		"/home/a/go-builder/gotong":                        true,
		"/tmp/go-build123/b001/exe/gotong":                 false,
		"/root/.cache/go-build/0a/" + "1f/gotong":          false,
		"/cache/" + strings.Repeat("0a", 32) + "-d/gotong": false,
	} {
		if err := checkServiceProgram(path); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, ok := range map[string]bool{"/srv/ü b": true, "/srv/a\nExecStart=b": false, "/srv/\xff": false} {
		if err := checkServicePath(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestServiceUnitOfOtherSystems(t *testing.T) {
	for system, next := range map[string]string{"windows": "schtasks /Create", "plan9": "at boot"} {
		_, err := serviceUnitOf(system, true)
		if f := failureOf(err); err == nil || f.code != exitFailed || !strings.Contains(f.next, next) {
			t.Errorf("%s: %v", system, err)
		}
	}
}
