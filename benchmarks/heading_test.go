package benchmarks

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// heading is the beginning of a result file: what was measured where, so that
// a later reader can tell whether two results may be compared.
func heading(now time.Time) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Benchmark of %s: %s\n\n", now.Format(time.DateOnly), run.settings.Result)
	for _, line := range [][2]string{
		{"commit", commit()},
		{"machine", machine()},
		{"Go", runtime.Version()},
		{"parameters", run.settings.String()},
		{"compared with", strings.Join(rivalVersions(), "; ")},
		{"load before and after", loadBefore + ", " + load()},
	} {
		fmt.Fprintf(&out, "- %s: %s\n", line[0], line[1])
	}
	out.WriteString("\nAll peers, rivals and the benchmark share the machine. See ../README.md for how to read this.\n\n")
	return out.String()
}

// commit names the commit of the tree and says when the tree differs from it.
func commit() string {
	hash, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown (" + err.Error() + ")"
	}
	name := strings.TrimSpace(string(hash))
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)benchmarks").Output()
	if err != nil || len(changed) > 0 {
		name += " with uncommitted changes"
	}
	return name
}

// machine describes processors, memory and system.
func machine() string {
	text := fmt.Sprintf("%d cores", runtime.NumCPU())
	if model := procField("/proc/cpuinfo", "model name"); model != "" {
		text += " (" + model + ")"
	}
	if memory := procField("/proc/meminfo", "MemTotal"); memory != "" {
		text += ", memory " + memory
	}
	return text + ", " + runtime.GOOS + "/" + runtime.GOARCH
}

// loadBefore is the load of the machine when the run began.
var loadBefore = load()

// load returns the load averages of the machine.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// procField returns the value of the first "NAME: VALUE" line of a file of
// /proc, empty where there is none.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// rivalVersions names the programs that were compared with.
func rivalVersions() []string {
	var out []string
	for _, version := range [][]string{{"restic", "version"}, {"rclone", "version"}, {"cp", "--version"}, {"xargs", "--version"}} {
		text, err := exec.Command(version[0], version[1:]...).Output()
		line, _, _ := strings.Cut(string(text), "\n")
		if err != nil || line == "" {
			line = version[0] + " not installed"
		}
		out = append(out, line)
	}
	return out
}
