//! `./dev chaos [NAME…]`: scenes in which something real is hurt, each with its own Kafka and Redis, and the
//! program as separate processes.
//!
//! A scene passes if at its end the sinks equal what another Kafka client makes of the log, no reader saw a
//! mixture or an older value than promised, and the state shown on the way was the right one.

mod scenes;

use std::panic;
use std::process::ExitCode;
use std::thread;

use chaos::now;
use chaos::stage::Stage;
use scenes::{SCENES, Scene};

const USAGE: &str = "usage: chaos [NAME…] | --short | --list
  NAME     a scene, or the beginning of several names, as `redis`; all scenes without one
  --short  the scenes of `./dev test`
  --list   what there is, and stop";

/// Plays a scene on a thread of its own; says what is wrong, if so.
fn play(scene: &'static Scene) -> Result<Stage, String> {
    let thread = thread::Builder::new().name(scene.name.into());
    let playing = thread.spawn(|| (scene.play)(scene.name));
    let played = playing
        .map_err(|error| format!("no thread: {error}"))?
        .join();
    played.map_err(|panic| {
        let told = panic.downcast_ref::<String>().map(String::as_str);
        let told = told.or_else(|| panic.downcast_ref::<&str>().copied());
        told.unwrap_or("it panicked").to_owned()
    })
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn tell(scene: &'static Scene) -> bool {
    println!("{}: {}", scene.name, scene.fault);
    let began = now();
    let played = play(scene);
    let took = began.elapsed().as_secs();
    match played {
        Ok(stage) => {
            for (what, took) in &stage.measured {
                println!("    {:>6.1} s  {what}", took.as_secs_f64());
            }
            println!(
                "    ok in {took} s: {} events, {} reads",
                stage.events, stage.reads
            );
            true
        }
        Err(why) => {
            println!(
                "    FAILED in {took} s: {why}\n    again: ./dev chaos {}",
                scene.name
            );
            false
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |scene: &Scene| {
        let mut names = arguments
            .iter()
            .filter(|name| !name.starts_with("--"))
            .peekable();
        names.peek().is_none() || names.any(|name| scene.name.starts_with(name.as_str()))
    };
    let short = arguments.iter().any(|name| name == "--short");
    let chosen: Vec<&'static Scene> = SCENES
        .iter()
        .copied()
        .flatten()
        .filter(|scene| is_named(scene) && (scene.short || !short))
        .collect();
    if chosen.is_empty() || arguments.iter().any(|name| name == "--help") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    if arguments.iter().any(|name| name == "--list") {
        for scene in chosen {
            let short = if scene.short { "short" } else { "" };
            println!("{:<28} {short:<6} {}", scene.name, scene.fault);
        }
        return ExitCode::SUCCESS;
    }
    // What a scene says is wrong is told once, with the scene.
    panic::set_hook(Box::new(|_| {}));
    let passed = chosen.iter().filter(|scene| tell(scene)).count();
    let failed = chosen.len() - passed;
    println!("chaos: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
