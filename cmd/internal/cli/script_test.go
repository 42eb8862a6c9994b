package cli

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gotong/tasks/sandbox"
)

func TestMain(m *testing.M) {
	// A sandbox child is this binary under its own name; were it to run the
	// tests, each would start peers that start children.
	if len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	// The stories mostly wait for processes: more at once than there may be processors.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"gotong": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the user stories in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GOTONG_HOME", e.WorkDir+"/home")
			e.Setenv("GOTONG_GOSSIP_PRESET", "local")
			e.Setenv("GOTONG_DISCOVERY_MDNS", "false")
			// Tasks run however busy this machine and its user are.
			for name, value := range map[string]string{"IDLE": "0s", "LOAD": "100%", "BATTERY": "true", "DISK_FREE": "0B"} {
				e.Setenv("GOTONG_DONATE_"+name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"appendconfig": appendConfig,
			"code":         exitCodeIs,
			"firstid":      firstID,
			"guest":        writeGuest,
			"ready":        waitReady,
			"until":        until,
		},
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
	})
}
