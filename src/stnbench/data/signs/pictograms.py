"""The pictograms, each drawn on a canvas whose square it roughly fills."""

from stnbench.data.signs.canvas import Canvas, Colour, arc
from stnbench.data.signs.palette import BLACK, GREEN, RED, WHITE, YELLOW


def car_behind(canvas: Canvas, colour: Colour, window: Colour = WHITE) -> None:
    """A car seen from behind."""
    canvas.polygon([(-0.58, -0.62), (0.58, -0.62), (0.82, -0.02), (0.95, 0.1), (0.95, 0.5), (-0.95, 0.5)], colour)
    canvas.polygon([(-0.95, 0.5), (-0.95, 0.1), (-0.82, -0.02), (-0.58, -0.62), (0, -0.62), (0, 0.5)], colour)
    canvas.polygon([(-0.44, -0.46), (0.44, -0.46), (0.6, -0.06), (-0.6, -0.06)], window)
    for side in (-1, 1):
        canvas.polygon([(side * 0.9, 0.45), (side * 0.9, 0.78), (side * 0.52, 0.78), (side * 0.52, 0.45)], colour)


def truck_behind(canvas: Canvas, colour: Colour) -> None:
    """A truck seen from behind: a tall box."""
    canvas.polygon([(-0.8, -1.0), (0.8, -1.0), (0.8, 0.5), (-0.8, 0.5)], colour)
    for side in (-1, 1):
        canvas.polygon([(side * 0.78, 0.45), (side * 0.78, 0.82), (side * 0.4, 0.82), (side * 0.4, 0.45)], colour)


def truck_aside(canvas: Canvas, colour: Colour) -> None:
    """A truck seen from the side, driving to the left."""
    canvas.polygon([(-0.28, -0.6), (1.0, -0.6), (1.0, 0.32), (-0.28, 0.32)], colour)
    cab = [(-0.34, -0.3), (-0.72, -0.3), (-0.88, 0.02), (-1.0, 0.08), (-1.0, 0.32), (-0.34, 0.32)]
    canvas.polygon(cab, colour)
    canvas.polygon([(-0.44, -0.2), (-0.66, -0.2), (-0.76, 0.02), (-0.44, 0.02)], WHITE)
    for x in (-0.68, 0.42, 0.78):
        canvas.disc((x, 0.36), 0.2, WHITE)
        canvas.disc((x, 0.36), 0.16, colour)


def crossing(canvas: Canvas) -> None:
    """Right of way at the next crossing: a thick arrow over a thin road."""
    canvas.polygon(
        [(-0.17, 1.0), (-0.17, -0.35), (-0.4, -0.35), (0, -1.05), (0.4, -0.35), (0.17, -0.35), (0.17, 1.0)], BLACK
    )
    canvas.polygon([(-0.62, 0.12), (0.62, 0.12), (0.62, 0.36), (-0.62, 0.36)], BLACK)


def exclamation(canvas: Canvas) -> None:
    """An exclamation mark."""
    canvas.polygon([*arc((0, -0.85), (0.22, 0.2), 180, 360), (0.1, 0.45), (-0.1, 0.45)], BLACK)
    canvas.disc((0, 0.78), 0.2, BLACK)


def curve(canvas: Canvas) -> None:
    """A road that bends to the left."""
    road = [(0.36, 1.0), (0.36, 0.3), *arc((-0.04, 0.1), (0.4, 0.42), 10, -85), (-0.86, -0.34)]
    canvas.arrow(road, 0.3, BLACK, head=(0.8, 0.52))


def double_curve(canvas: Canvas) -> None:
    """A road that bends to the left, then to the right."""
    road = [(0.3, 1.05), (0.3, 0.42), (-0.3, 0.06), (-0.3, -0.2), (0.16, -0.6), (0.16, -1.1)]
    canvas.stroke(road[:5], 0.26, BLACK)
    canvas.arrow([(0.12, -0.42), (0.16, -1.15)], 0.26, BLACK, head=(0.62, 0.5))


def bumps(canvas: Canvas) -> None:
    """Two humps on the road."""
    humps = [*arc((-0.48, 0.42), (0.42, 0.5), 180, 345), *arc((0.48, 0.42), (0.42, 0.5), 195, 360)]
    canvas.polygon([(-1.0, 0.72), (-1.0, 0.42), *humps, (1.0, 0.42), (1.0, 0.72)], BLACK)


def skid(canvas: Canvas) -> None:
    """A car that slides, over its winding tracks."""
    car_behind(canvas.inset((0.02, -0.5), 0.56, degrees=14), BLACK)
    for x in (-0.42, 0.3):
        track = [*arc((x, 0.22), (0.2, 0.2), -60, -270), *arc((x, 0.68), (0.24, 0.26), -90, 110)]
        canvas.stroke([(y_x + 0.04, y) for y_x, y in track], 0.15, BLACK, round_ends=True)


def narrowing(canvas: Canvas) -> None:
    """A road whose right edge comes in."""
    canvas.polygon([(-0.5, 1.0), (-0.5, -1.0), (-0.24, -1.0), (-0.24, 1.0)], BLACK)
    canvas.polygon(
        [(0.5, 1.0), (0.5, 0.25), (0.2, -0.2), (0.2, -1.0), (-0.02, -1.0), (-0.02, -0.1), (0.26, 0.35), (0.26, 1.0)],
        BLACK,
    )


def roadworks(canvas: Canvas) -> None:
    """A man with a shovel before a heap."""
    canvas.disc((-0.12, -0.86), 0.2, BLACK)
    canvas.stroke([(-0.2, -0.6), (-0.46, 0.08)], 0.36, BLACK, round_ends=True)
    canvas.stroke([(-0.46, 0.1), (-0.2, 0.45), (-0.3, 0.98)], 0.2, BLACK, round_ends=True)
    canvas.stroke([(-0.5, 0.1), (-0.66, 0.5), (-0.98, 0.92)], 0.2, BLACK, round_ends=True)
    canvas.stroke([(-0.14, -0.55), (0.22, -0.2), (0.0, 0.06)], 0.15, BLACK, round_ends=True)
    canvas.stroke([(-0.42, -0.1), (0.62, 0.52)], 0.1, BLACK)
    canvas.polygon([*arc((0.62, 1.0), (0.52, 0.52), 180, 360)], BLACK)


def traffic_lights(canvas: Canvas) -> None:
    """Red over yellow over green."""
    for y, colour in ((-0.72, RED), (0.0, YELLOW), (0.72, GREEN)):
        canvas.disc((0, y), 0.31, colour)


def walker(canvas: Canvas) -> None:
    """A person who walks to the left."""
    canvas.disc((0.0, -0.84), 0.17, BLACK)
    canvas.stroke([(0.0, -0.52), (0.04, 0.1)], 0.32, BLACK, round_ends=True)
    canvas.stroke([(0.02, 0.1), (-0.2, 0.48), (-0.36, 0.98)], 0.17, BLACK, round_ends=True)
    canvas.stroke([(0.06, 0.1), (0.2, 0.5), (0.42, 0.96)], 0.17, BLACK, round_ends=True)
    canvas.stroke([(-0.04, -0.52), (-0.3, -0.2), (-0.42, 0.1)], 0.12, BLACK, round_ends=True)
    canvas.stroke([(0.06, -0.52), (0.28, -0.2), (0.3, 0.1)], 0.12, BLACK, round_ends=True)


def pedestrian(canvas: Canvas) -> None:
    """A person on a striped crossing."""
    walker(canvas.inset((0, -0.12), 0.9))
    for x in (-0.92, -0.52, -0.12, 0.28, 0.68):
        canvas.polygon([(x, 0.86), (x + 0.24, 0.86), (x + 0.3, 1.06), (x + 0.06, 1.06)], BLACK)


def children(canvas: Canvas) -> None:
    """Two children, the larger one ahead, running hand in hand to the left."""
    for centre, scale in (((-0.42, -0.06), 0.92), ((0.58, 0.26), 0.66)):
        child = canvas.inset(centre, scale, degrees=-14)
        child.disc((0.0, -0.78), 0.21, BLACK)
        child.stroke([(0.0, -0.42), (0.06, 0.1)], 0.34, BLACK, round_ends=True)
        child.stroke([(0.04, 0.12), (-0.34, 0.36), (-0.3, 0.8)], 0.2, BLACK, round_ends=True)
        child.stroke([(0.08, 0.12), (0.3, 0.5), (0.72, 0.62)], 0.2, BLACK, round_ends=True)
        child.stroke([(0.0, -0.42), (-0.46, -0.2)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(-0.36, -0.36), (0.1, 0.12), (0.5, 0.02)], 0.14, BLACK, round_ends=True)


def bicycle(canvas: Canvas) -> None:
    """A bicycle."""
    for x in (-0.56, 0.56):
        canvas.stroke(arc((x, 0.3), (0.4, 0.4), 0, 360), 0.11, BLACK)
    frame = [(-0.56, 0.3), (-0.24, -0.28), (0.34, -0.28), (-0.04, 0.3), (-0.56, 0.3)]
    canvas.stroke(frame, 0.1, BLACK, round_ends=True)
    canvas.stroke([(-0.04, 0.3), (-0.3, -0.46)], 0.1, BLACK)
    canvas.stroke([(-0.46, -0.48), (-0.14, -0.48)], 0.12, BLACK, round_ends=True)
    canvas.stroke([(0.56, 0.3), (0.28, -0.54), (0.5, -0.6)], 0.1, BLACK, round_ends=True)


def snowflake(canvas: Canvas) -> None:
    """A crystal of snow with six arms."""
    for degrees in range(0, 360, 60):
        arm = canvas.inset((0, 0), 1.0, degrees=degrees)
        arm.stroke([(0, 0), (0, -0.95)], 0.15, BLACK, round_ends=True)
        arm.stroke([(-0.26, -0.86), (0, -0.55), (0.26, -0.86)], 0.13, BLACK, round_ends=True)


def deer(canvas: Canvas) -> None:
    """A deer that leaps to the left."""
    body = [
        (-0.5, -0.3),
        (-0.1, -0.22),
        (0.46, -0.02),
        (0.72, 0.12),
        (0.6, 0.42),
        (0.2, 0.3),
        (-0.28, 0.22),
        (-0.52, 0.1),
    ]
    canvas.polygon(body, BLACK)
    canvas.polygon([(-0.54, 0.12), (-0.62, -0.56), (-0.42, -0.6), (-0.16, -0.2)], BLACK)
    canvas.polygon([(-0.92, -0.42), (-0.6, -0.74), (-0.38, -0.58), (-0.6, -0.4)], BLACK)
    canvas.stroke([(-0.46, -0.66), (-0.3, -1.0), (-0.42, -1.16)], 0.09, BLACK, round_ends=True)
    canvas.stroke([(-0.36, -0.88), (-0.1, -1.08)], 0.09, BLACK, round_ends=True)
    canvas.stroke([(-0.46, 0.16), (-0.78, 0.34), (-0.6, 0.56)], 0.13, BLACK, round_ends=True)
    canvas.stroke([(-0.3, 0.2), (-0.5, 0.56), (-0.3, 0.76)], 0.13, BLACK, round_ends=True)
    canvas.stroke([(0.5, 0.3), (0.7, 0.62), (0.98, 0.9)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(0.62, 0.3), (0.86, 0.5), (1.06, 0.56)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(0.7, 0.12), (0.86, 0.0)], 0.1, BLACK, round_ends=True)
