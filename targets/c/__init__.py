"""C11 for microcontrollers: kernels, the generator that wires them, and the memory planner."""
