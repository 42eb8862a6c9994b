package sandbox

import "os"

// stopProcesses: there is no such thing here; the caller ends the child instead.
func stopProcesses(*os.Process) bool { return false }

func continueProcesses(*os.Process) {}
