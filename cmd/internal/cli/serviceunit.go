package cli

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gotong/configs"
)

// serviceMark is in the first line of the files that service install writes. Others
// are never replaced or removed.
const serviceMark = "Written by gotong service install"

// serviceUnit is what a service manager needs to know to run a peer.
type serviceUnit struct {
	path   string     // of its file
	active []string   // exits with 0 when the service runs
	start  [][]string // after the file was written
	again  [][]string // the same when the service runs already
	stop   [][]string // ends the service and removes the file
	remark string     // to the user, once it is installed

	// text returns what is in the file, and how that names the home.
	text func(program, home string) (text, named string, err error)
}

// serviceUnitOf returns the unit of a system, for this user or for the machine.
func serviceUnitOf(system string, user bool) (serviceUnit, error) {
	switch {
	case system == "linux":
		return systemdUnit(user)
	case system == "darwin" && user:
		return launchAgent()
	case system == "darwin":
		return serviceUnit{}, errors.New("on macOS a peer runs as a service of a user only")
	case system == "windows":
		return serviceUnit{}, &failure{code: exitFailed, what: "this command cannot make or end a service of Windows", meaning: "nothing was changed; a task of Windows can start the peer at logon",
			next: `schtasks /Create /SC ONLOGON /TN gotong /TR "\"PROGRAM\" --home \"HOME\" up"; to end that: schtasks /Delete /TN gotong`}
	}
	return serviceUnit{}, &failure{code: exitFailed, what: "this command knows no service manager of " + system, meaning: "nothing was changed",
		next: "have gotong --home HOME up run at boot"}
}

func systemdUnit(user bool) (serviceUnit, error) {
	const name = "gotong.service"
	systemctl := func(words ...string) []string {
		if user {
			return append([]string{"systemctl", "--user"}, words...)
		}
		return append([]string{"systemctl"}, words...)
	}
	path, remark := "/etc/systemd/system/"+name, ""
	if user {
		dir, err := os.UserConfigDir()
		if err != nil {
			return serviceUnit{}, err
		}
		path = filepath.Join(dir, "systemd", "user", name)
		remark = "It runs while you are logged in; to have it run always: loginctl enable-linger"
	}
	return serviceUnit{
		path: path, remark: remark,
		active: systemctl("is-active", "--quiet", name),
		start:  [][]string{systemctl("daemon-reload"), systemctl("enable", "--now", name)},
		again:  [][]string{systemctl("daemon-reload"), systemctl("enable", name), systemctl("restart", name)},
		stop:   [][]string{systemctl("disable", "--now", name), {"rm", path}, systemctl("daemon-reload")},
		text:   func(program, home string) (string, string, error) { return systemdText(program, home, user) },
	}, nil
}

// systemdText is configs.Unit for this program and home.
func systemdText(program, home string, user bool) (text, named string, err error) {
	named = "--home " + systemdQuote(home, true)
	_, text, _ = strings.Cut(configs.Unit, "[Unit]\n") // without the words on how to copy it
	text = strings.ReplaceAll(text, configs.UnitProgram, systemdQuote(program, false)+" "+named)
	if !user {
		// The files of a home are its owner's, and a peer needs no more rights.
		owner, err := fileOwner(home)
		if err != nil {
			return "", "", err
		}
		if owner != 0 {
			text = strings.Replace(text, "[Service]\n", fmt.Sprintf("[Service]\nUser=%d\n", owner), 1)
		}
		text = strings.Replace(text, "WantedBy=default.target", "WantedBy=multi-user.target", 1)
	}
	return "# " + serviceMark + ", which writes it again; gotong service uninstall removes it.\n[Unit]\n" + text, named, nil
}

// systemdQuote is a word of a command line in a unit. Variables are replaced in
// arguments, but not in the path of the program.
func systemdQuote(word string, argument bool) string {
	replace := []string{`\`, `\\`, `"`, `\"`, "%", "%%"}
	if argument {
		replace = append(replace, "$", "$$")
	}
	return `"` + strings.NewReplacer(replace...).Replace(word) + `"`
}

func launchAgent() (serviceUnit, error) {
	dir, err := os.UserHomeDir()
	if err != nil {
		return serviceUnit{}, err
	}
	path := filepath.Join(dir, "Library", "LaunchAgents", agentLabel+".plist")
	domain := "gui/" + strconv.Itoa(os.Getuid())
	start, end := []string{"launchctl", "bootstrap", domain, path}, []string{"launchctl", "bootout", domain + "/" + agentLabel}
	return serviceUnit{
		path: path, remark: "It runs while you are logged in",
		active: []string{"launchctl", "print", domain + "/" + agentLabel},
		start:  [][]string{start},
		again:  [][]string{end, start},
		stop:   [][]string{end, {"rm", path}},
		text:   agentText,
	}, nil
}

const agentLabel = "gotong"

func agentText(program, home string) (text, named string, err error) {
	named = xmlString(home)
	return `<?xml version="1.0" encoding="UTF-8"?><!-- ` + serviceMark + `, which writes it again; gotong service uninstall removes it. -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	` + xmlString(agentLabel) + `
	<key>ProgramArguments</key>
	<array>
		` + xmlString(program) + `
		<string>--home</string>
		` + named + `
		<string>up</string>
	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>Nice</key>
	<integer>5</integer>
</dict>
</plist>
`, named, nil
}

func xmlString(text string) string {
	var b strings.Builder
	b.WriteString("<string>")
	_ = xml.EscapeText(&b, []byte(text)) // to memory: cannot fail
	return b.String() + "</string>"
}

// goCache matches where the go command keeps programs that it made to run once.
var goCache = regexp.MustCompile(`[/\\](go-build[0-9]*[/\\]|[0-9a-f]{64}-d[/\\][^/\\]*$)`)

// serviceProgram returns the path of this program, which must be there to stay.
func serviceProgram() (string, error) {
	path, err := os.Executable()
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", fmt.Errorf("the path of this program: %w", err)
	}
	if err := checkServiceProgram(path); err != nil {
		return "", err
	}
	return path, checkServicePath(path)
}

func checkServiceProgram(path string) error {
	if !goCache.MatchString(path) {
		return nil
	}
	return &failure{code: exitFailed, what: "this program is a temporary one of the go command: " + path, meaning: "nothing was changed; a service of it would fail once it is deleted",
		next: "go install ./cmd/gotong, then that program's gotong service install"}
}

// checkServicePath refuses what a line of a unit cannot hold.
func checkServicePath(path string) error {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, unicode.IsControl) {
		return nil
	}
	return &failure{code: exitFailed, what: fmt.Sprintf("a service cannot name %q", path), meaning: "nothing was changed", next: "rename it: UTF-8, and no control characters"}
}
